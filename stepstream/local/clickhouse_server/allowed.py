"""Which settings a client may name, in a URL, a form, SET or SETTINGS: everything else is refused.

Some of the engine's settings name files, hosts or formats that do. So these are lists of exact
names: what the clients, the sink, the migrations and people's queries use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stepstream.local.clickhouse_server.errors import READONLY, SETTING_REFUSED, error
from stepstream.local.clickhouse_server.lexer import Kind, Token
from stepstream.local.clickhouse_server.statement import Statement

LIMITS: Final = frozenset(
    {"max_execution_time", "max_memory_usage", "max_result_bytes", "max_result_rows"}
)
"""A reader may lower these."""

READERS: Final = LIMITS | {
    "cancel_http_readonly_queries_on_client_close",
    "cast_string_to_dynamic_use_inference",
    "date_time_input_format",
    "date_time_output_format",
    "extremes",
    "format_csv_delimiter",
    "http_buffer_size",
    "max_block_size",
    "output_format_arrow_string_as_string",
    "output_format_binary_encode_types_in_binary_format",
    "output_format_binary_write_json_as_string",
    "output_format_csv_crlf_end_of_line",
    "output_format_decimal_trailing_zeros",
    "output_format_json_named_tuples_as_objects",
    "output_format_json_quote_64bit_floats",
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_decimals",
    "output_format_json_quote_denormals",
    "output_format_native_encode_types_in_binary_format",
    "output_format_native_write_json_as_string",
    "output_format_parquet_string_as_string",
    "output_format_pretty_color",
    "output_format_pretty_max_rows",
    "output_format_pretty_row_numbers",
    "output_format_tsv_crlf_end_of_line",
    "readonly",
    "result_overflow_mode",
    "session_timezone",
    "use_client_time_zone",
}  # fmt: skip
"""What a reader may set for its own query: format and transport of the answer, and tighter limits.
"""

WRITERS: Final = READERS | {
    "allow_experimental_dynamic_type",
    "allow_experimental_json_type",
    "allow_experimental_variant_type",
    "allow_nondeterministic_mutations",
    "allow_suspicious_low_cardinality_types",
    "alter_sync",
    "async_insert",
    "deduplicate_blocks_in_dependent_materialized_views",
    "deduplicate_insert",
    "distinct_overflow_mode",
    "do_not_merge_across_partitions_select_final",
    "enable_json_type",
    "final",
    "flatten_nested",
    "group_by_overflow_mode",
    "input_format_allow_errors_num",
    "input_format_allow_errors_ratio",
    "input_format_binary_decode_types_in_binary_format",
    "input_format_binary_read_json_as_string",
    "input_format_csv_empty_as_default",
    "input_format_defaults_for_omitted_fields",
    "input_format_json_read_numbers_as_strings",
    "input_format_native_decode_types_in_binary_format",
    "input_format_null_as_default",
    "input_format_parallel_parsing",
    "input_format_skip_unknown_fields",
    "insert_deduplicate",
    "insert_deduplication_token",
    "insert_null_as_default",
    "join_algorithm",
    "join_use_nulls",
    "lightweight_deletes_sync",
    "load_balancing",
    "log_queries",
    "materialize_ttl_after_modify",
    "max_bytes_before_external_group_by",
    "max_bytes_before_external_sort",
    "max_bytes_to_read",
    "max_estimated_execution_time",
    "max_final_threads",
    "max_insert_block_size",
    "max_insert_threads",
    "max_partitions_per_insert_block",
    "max_rows_to_group_by",
    "max_rows_to_read",
    "max_threads",
    "min_insert_block_size_bytes",
    "min_insert_block_size_rows",
    "mutations_sync",
    "optimize_on_insert",
    "optimize_read_in_order",
    "parallel_view_processing",
    "prefer_column_name_to_alias",
    "priority",
    "query_plan_optimize_lazy_materialization",
    "read_overflow_mode",
    "select_sequential_consistency",
    "throw_on_max_partitions_per_insert_block",
    "timeout_overflow_mode",
    "union_default_mode",
    "use_query_condition_cache",
    "use_skip_indexes",
    "use_skip_indexes_if_final",
    "use_skip_indexes_if_final_exact_mode",
    "use_uncompressed_cache",
    "wait_for_async_insert",
}  # fmt: skip
"""What the writer may set for a query."""

TABLES: Final = frozenset(
    {
        "allow_nullable_key",
        "base_backup",
        "deduplicate_merge_projection_mode",
        "default_compression_codec",
        "enable_block_number_column",
        "enable_block_offset_column",
        "index_granularity",
        "index_granularity_bytes",
        "max_compress_block_size",
        "merge_max_block_size",
        "merge_with_recompression_ttl_timeout",
        "merge_with_ttl_timeout",
        "min_age_to_force_merge_seconds",
        "min_bytes_for_wide_part",
        "min_compress_block_size",
        "min_rows_for_wide_part",
        "non_replicated_deduplication_window",
        "old_parts_lifetime",
        "parts_to_delay_insert",
        "parts_to_throw_insert",
        "replicated_deduplication_window",
        "replicated_deduplication_window_seconds",
        "string_serialization_version",
        "structure_only",
        "ttl_only_drop_parts",
    }
)
"""What a statement may set for tables and backups; guard.py checks the place of a ``base_backup``.
"""

IN_STATEMENTS: Final = WRITERS | TABLES

_LIST_ENDS: Final = frozenset(
    {"AS", "COMMENT", "EMPTY", "EXCEPT", "FORMAT", "FROM", "INTERSECT", "INTO", "ORDER",
    "PARTITION", "POPULATE", "PRIMARY",
     "SELECT", "SETTINGS", "TTL", "UNION", "VALUES", "WHERE"}
)  # fmt: skip


def check_requested(names: Iterator[str] | list[str], reader: bool) -> None:
    """Refuse settings of a request that are not on the list."""
    for name in names:
        if reader and name not in READERS:
            raise error(READONLY, f"Cannot modify '{name[:80]}' setting in readonly mode")
        if name not in WRITERS:
            raise refused(name)


def check_settings(statement: Statement, known: frozenset[str]) -> None:
    """Refuse a statement that sets what is not on the list.

    ``known`` are the engine's settings that need no value.
    """
    if statement.verb == "SET":
        found = _list(statement.tokens, 1, known)
        names = list(found)
        if not names:
            raise error(SETTING_REFUSED, "only SET name = value is possible here")
    else:
        names = [
            name
            for at, token in enumerate(statement.tokens)
            if token.upper in ("SETTINGS", "SETTING") and not _is_other(statement, at)
            for name in _list(statement.tokens, at + 1, known)
        ]
    for name in names:
        if name not in IN_STATEMENTS and not (
            statement.verb == "SET" and name.startswith("param_")
        ):
            raise refused(name)


def _is_other(statement: Statement, at: int) -> bool:
    """Whether SETTINGS there begins no list: system.settings, SHOW SETTINGS, RESET SETTING a.

    Elsewhere those words may be an alias: SELECT 1 AS show SETTINGS a = 1.
    """
    before = statement.tokens[at - 1] if at else None
    if before is None:
        return False
    opening = {"SHOW": ("SHOW",), "ALTER": ("RESET",)}.get(statement.verb, ())
    return before.upper in opening or (before.text == "." and before.kind is Kind.MARK)


def refused(name: str) -> Exception:
    """The error for a setting that no client may name."""
    return error(
        SETTING_REFUSED,
        f"the setting {name[:80]} cannot be changed on the embedded server (docs/store.md lists "
        "what can)",
    )


def _list(found: tuple[Token, ...], at: int, known: frozenset[str]) -> Iterator[str]:
    """Names of a list ``a = 1, b = 2`` that begins there; a name alone counts where it is a
    setting."""
    if at < len(found) and found[at].text == "(" and found[at].kind is Kind.MARK:
        at += 1
    while at < len(found):
        name = found[at].name
        after = (
            found[at + 1].text if at + 1 < len(found) and found[at + 1].kind is Kind.MARK else ""
        )
        if not name:
            if found[at].kind is Kind.MARK and found[at].text == "{":
                yield "{...}"
            return
        if after == ".":
            yield f"{name}. ..."
        elif after in ("=", "==") or name.lower() in known:
            yield name
        else:
            return
        at = _after_comma(found, at + 1)


def _after_comma(found: tuple[Token, ...], at: int) -> int:
    """Where the next name of a list stands; the end where there is none."""
    depth = 0
    while at < len(found):
        token = found[at]
        if token.kind is Kind.MARK:
            depth += (token.text in "([{") - (token.text in ")]}")
            if depth == 0 and token.text == ",":
                return at + 1
        if depth < 0 or (depth == 0 and token.upper in _LIST_ENDS):
            break
        at += 1
    return len(found)
