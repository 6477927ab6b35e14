"""Results of suites and verdicts of the gate: rows that a command inserts, not the sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batcher import MAX_ROWS
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.rows import Block, Columns, Table, sink_table

TRIALS: Final = sink_table("eval_trials_raw")
VERDICTS: Final = sink_table("eval_verdicts_raw")

Rows = Sequence[Mapping[str, Any]]


def insert_results(settings: Settings, results_id: str, trials: Rows) -> None:
    """Insert the trials of one file of results; the same ones again change nothing.

    Raises ``RowsRefused``, a ``StoreError``, and ``clickhouse_connect``'s errors.
    """
    _insert(settings, TRIALS, trials, f"eval-results:{results_id}")


def insert_verdict(settings: Settings, verdict: Mapping[str, Any]) -> None:
    """Insert one verdict; the same one again changes nothing. Raises as ``insert_results``."""
    _insert(settings, VERDICTS, [verdict], f"eval-verdict:{verdict['verdict_id']}")


def _insert(settings: Settings, table: Table, rows: Rows, token: str) -> None:
    inserter = Inserter(settings)
    try:
        for start in range(0, len(rows), MAX_ROWS):
            some = rows[start : start + MAX_ROWS]
            columns: Columns = {name: [row[name] for row in some] for name in table.types}
            inserter.insert(Block(table, columns, len(some)), f"{token}:{start}")
    finally:
        inserter.drop_client()
