"""Many steps from a few: the store's own rows copied under other ids, spread over the last week."""

from __future__ import annotations

from typing import Final

from clickhouse_connect.driver.client import Client

WEEK_S: Final = 7 * 86_400
MOST_AT_ONCE: Final = 20

_COLUMNS: Final = (
    "schema_version, trace_id, step_id, parent_step_id, phase, kind, name, tool, model, provider, project, environment, agent, "
    "agent_version, task, session_id, user_id, start_time, end_time, first_token_time, status, error_type, error_message, "
    "attempt, retry_of, fallback_of, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, "
    "cost_usd, cost_source, price_version, input, output, input_bytes, output_bytes, tool_schema, documents, attributes, "
    "append_time, kafka_topic_id, kafka_partition, kafka_offset"
)
_NEW_ID: Final = "lower(hex(MD5(concat(trace_id, toString(copy)))))"


def multiply(client: Client, wanted: int) -> None:
    """Copy what was stored first until about ``wanted`` steps are there; rollups follow by their views."""
    first = int(client.command("SELECT count() FROM steps_raw WHERE kafka_topic_id != 'copy'"))  # type: ignore[arg-type]
    have = int(client.command("SELECT count() FROM steps_raw"))  # type: ignore[arg-type]
    copies = max(1, wanted // first)
    begin = have // first
    while begin < copies:
        count = min(MOST_AT_ONCE, copies - begin)
        client.command(_statement(begin, count, copies))
        begin += count


def _statement(begin: int, count: int, copies: int) -> str:
    """One insert of ``count`` copies; copy n lies n/copies of a week back."""
    shift = f"toIntervalSecond(intDiv({WEEK_S} * copy, {copies}))"
    changed = {
        "trace_id": f"{_NEW_ID} AS trace_id",
        "start_time": f"s.start_time - {shift} AS start_time",
        "end_time": f"s.end_time - {shift} AS end_time",
        "append_time": f"s.append_time - {shift} AS append_time",
        "kafka_topic_id": "'copy' AS kafka_topic_id",
    }
    plain = [name.strip() for name in _COLUMNS.split(",")]
    selected = ", ".join(changed.get(name, f"s.{name} AS {name}") for name in plain)
    selected = selected.replace("trace_id, toString", "s.trace_id, toString")
    return (
        f"INSERT INTO steps_raw ({_COLUMNS}) SELECT {selected} FROM steps_raw AS s "
        f"CROSS JOIN (SELECT number + {begin} AS copy FROM numbers({count})) AS copies WHERE s.kafka_topic_id != 'copy' "
        f"SETTINGS max_partitions_per_insert_block = 0, insert_deduplicate = 0"
    )
