"""Many steps from a few: the store's own rows copied under other ids, spread over the last week."""

from __future__ import annotations

from typing import Final

from clickhouse_connect.driver.client import Client

WEEK_S: Final = 7 * 86_400
ROWS_AT_ONCE: Final = 2_000_000

_COLUMNS: Final = (
    "schema_version, trace_id, step_id, parent_step_id, phase, kind, name, tool, model, provider, "
    "project, environment, agent, "
    "agent_version, task, session_id, user_id, start_time, end_time, first_token_time, status, "
    "error_type, error_message, "
    "attempt, retry_of, fallback_of, input_tokens, output_tokens, cached_input_tokens, "
    "cache_write_tokens, reasoning_tokens, "
    "cost_usd, cost_source, price_version, input, output, input_bytes, output_bytes, tool_schema, "
    "documents, attributes, "
    "append_time, kafka_topic_id, kafka_partition, kafka_offset"
)
_NEW_ID: Final = "lower(hex(MD5(concat(s.trace_id, toString(copy)))))"
_ROLLUPS: Final = {"rollup_1m": "steps_to_rollup_1m", "rollup_1h": "steps_to_rollup_1h"}


class Multiplier:
    """Fills a store up.

    The rollups' views are taken away first, and the rollups made from the rows at the end: quicker.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._selects = {rollup: self._take_away(view) for rollup, view in _ROLLUPS.items()}
        self._first = self._count("kafka_topic_id != 'copy'")

    def _count(self, condition: str) -> int:
        return int(str(self._client.command(f"SELECT count() FROM steps_raw WHERE {condition}")))

    def _take_away(self, view: str) -> str:
        select = self._client.command(
            "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = "
            f"'{view}'"
        )
        self._client.command(f"DROP VIEW {view}")
        return str(select).replace("\\'", "'")

    def fill(self, wanted: int) -> int:
        """Copy what was there first until about ``wanted`` steps are there; returns how many there
        are."""
        copies = max(1, wanted // self._first)
        done = self._count("1") // self._first
        at_once = max(1, ROWS_AT_ONCE // self._first)
        for begin in range(done, copies, at_once):
            self._client.command(_statement(begin, min(at_once, copies - begin), copies))
        for rollup, select in self._selects.items():
            self._client.command(f"TRUNCATE TABLE {rollup}")
            self._client.command(f"INSERT INTO {rollup} {select}")
        return self._count("1")


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
    return (
        f"INSERT INTO steps_raw ({_COLUMNS}) SELECT {selected} FROM steps_raw AS s "
        f"CROSS JOIN (SELECT number + {begin} AS copy FROM numbers({count})) AS copies WHERE "
        "s.kafka_topic_id != 'copy' "
        "SETTINGS max_partitions_per_insert_block = 0, insert_deduplicate = 0, max_insert_threads "
        "= 2"
    )
