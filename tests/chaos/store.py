"""Sinks in a scenario, and the check that ClickHouse has exactly what was sent."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate
from tests.chaos.truth import RunTruth, Truth
from tests.support.processes import Process

NANO = Decimal(10) ** 9


def sink(settings: Settings, log: Path) -> Process:
    """A sink."""
    return Process("stepstream", settings, log, "sink")


class StoreVerifier:
    """Checks that each step is in the views and rollups once with its exact cost, and each run and
    alert in its final state."""

    def __init__(self, settings: Settings) -> None:
        migrate(settings)
        self._client: Client = connect(settings)
        self._rows = 0
        self._settled_after_s = 0.0
        self._began = time.monotonic()

    def is_settled(self, truth: Truth) -> bool:
        """Whether the counts are complete; ``problems`` compares the rows."""
        ready = (
            self._totals("steps", "count()")
            == _totals(truth)
            == self._totals("metrics_1h", "sum(steps)")
        )
        ready = ready and self._runs() == {
            run.trace_id: run.final_revision for run in truth.runs.values()
        }
        if ready and not self._settled_after_s:
            self._settled_after_s = time.monotonic() - self._began
        return ready

    def problems(self, truth: Truth) -> list[str]:
        """Everything that is wrong."""
        found = [*self._steps(truth), *self._open(truth), *self._alerts(truth)]
        wanted = _totals(truth)
        for view, count in (
            ("steps", "count()"),
            ("metrics_1m", "sum(steps)"),
            ("metrics_1h", "sum(steps)"),
        ):
            if (totals := self._totals(view, count)) != wanted:
                found.append(f"store: {view} has {totals}, wanted {wanted}")
        runs = self._runs()
        wrong = [run for run in truth.runs.values() if runs.get(run.trace_id) != run.final_revision]
        found += [
            f"store: run {r.trace_id[:8]} at revision {runs.get(r.trace_id)}, wanted "
            f"{r.final_revision}"
            for r in wrong
        ]
        self._rows = wanted[0]
        self._client.close()
        return found

    def counts(self) -> dict[str, int]:
        """What was compared."""
        return {
            "stored steps": self._rows,
            "milliseconds until all was stored": round(self._settled_after_s * 1000),
        }

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._client.query(query).result_rows]

    def _totals(self, view: str, count: str) -> tuple[int, int]:
        rows, cost = self._ask(f"SELECT {count}, sum(cost_usd) FROM {view}")[0]
        return int(rows or 0), _nanos(cost)

    def _runs(self) -> dict[str, int]:
        return {
            trace_id: int(revision)
            for trace_id, revision in self._ask("SELECT trace_id, revision FROM runs")
        }

    def _steps(self, truth: Truth) -> list[str]:
        asked = (
            "SELECT trace_id, count(), uniqExact(step_id), sum(cost_usd) FROM steps GROUP BY "
            "trace_id"
        )
        found = {
            trace_id: (rows, distinct, _nanos(cost))
            for trace_id, rows, distinct, cost in self._ask(asked)
        }
        wanted = {
            run.trace_id: (len(run.ended), len(run.ended), run.cost_nanos)
            for run in truth.runs.values()
            if run.ended
        }
        different = [
            trace_id
            for trace_id in found.keys() | wanted.keys()
            if found.get(trace_id) != wanted.get(trace_id)
        ]
        return [
            f"store: steps of {one[:8]} are {found.get(one)}, wanted {wanted.get(one)}"
            for one in different
        ]

    def _open(self, truth: Truth) -> list[str]:
        found = {
            (trace_id, step_id)
            for trace_id, step_id in self._ask("SELECT trace_id, step_id FROM open_steps")
        }
        wanted = {
            (run.trace_id, step_id) for run in truth.runs.values() for step_id in _unended(run)
        }
        return [
            f"store: open step {trace_id[:8]} {step_id}" for trace_id, step_id in found ^ wanted
        ]

    def _alerts(self, truth: Truth) -> list[str]:
        # Alerts about several runs depend on how fast these came one after the other: those of
        # single runs do not.
        asked = "SELECT trace_id, alert, subject, state, seq FROM alerts WHERE trace_id != ''"
        found = {
            (trace_id, alert, subject): (state, seq)
            for trace_id, alert, subject, state, seq in self._ask(asked)
        }
        wanted = {
            (run.trace_id, alert, subject): (
                "resolved" if item.resolved else "firing",
                item.firing + item.resolved,
            )
            for run in truth.runs.values()
            for (alert, subject), item in run.findings.items()
        }
        different = [
            key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
        ]
        return [
            f"store: alert {key} is {found.get(key)}, wanted {wanted.get(key)}" for key in different
        ]


def _unended(run: RunTruth) -> set[str]:
    return {step_id for step_id, phase in run.records if phase == "start"} - set(run.ended)


def _totals(truth: Truth) -> tuple[int, int]:
    runs = truth.runs.values()
    return sum(len(run.ended) for run in runs), sum(run.cost_nanos for run in runs)


def _nanos(cost: Decimal | None) -> int:
    return int((cost or Decimal(0)) * NANO)
