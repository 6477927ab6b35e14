"""A backtest of a million recorded steps (100,000 with ``--quick``) on two cores, with progress.

The steps are those of a scenario with faults, spread over seven days, stored with the sink's own
row builders. What is measured is ``stepstream.backtest.evaluate.backtest``: reading the store, and
evaluating every step with two sets of policies.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from benchmarks import harness
from benchmarks.bench import scratch_folder
from benchmarks.harness import Goal, Report
from benchmarks.questions import RUNS
from stepstream.backtest.evaluate import backtest, batched
from stepstream.backtest.store import Scope
from stepstream.backtest.timeline import Timeline
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US, us_of
from stepstream.simulate.generate import events
from stepstream.simulate.scenario import Scenario
from stepstream.sinks.batching.records import USUAL_HEADERS, Record, Source
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.step_rows import build_steps

STEPS: Final = {False: 1_000_000, True: 100_000}
DAYS: Final = 7
STEPS_A_RUN: Final = 13.0
MAX_S: Final = 120.0
BATCH: Final = 20_000
_encode = msgspec.json.Encoder().encode


def scenario(steps: int) -> Scenario:
    """Eight agents with some faults; about this many steps in seven days."""
    rate = steps / STEPS_A_RUN / (DAYS * 24 * 60) / 8
    agents = [{"agent": f"agent-{n}", "runs_per_minute": rate} for n in range(8)]
    kinds = ("loop", "tool_timeout", "silent_error", "cost_blowup")
    return Scenario.model_validate(
        {
            "name": "backtest",
            "duration": f"{DAYS}d",
            "agents": agents,
            "faults": [{"fault": kind, "share": 0.02} for kind in kinds],
        }
    )


def policy(limit: str, *more: dict[str, Any]) -> Policy:
    rules = [{"rule": "run_cost", "limit_usd": limit, "action": "stop"}, *more]
    return Policy.model_validate({"name": "costs", "mode": "enforce", "rules": rules})


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Store the steps, then evaluate them once."""
    wanted = STEPS[arguments.quick]
    now = datetime.now(UTC).replace(microsecond=0)
    with scratch_folder() as folder, EmbeddedClickHouse(folder / "clickhouse") as store:
        settings = Settings(clickhouse_url=store.writer_url, clickhouse_database="backtest")
        migrate(settings)
        began = time.monotonic()
        stored = _store(settings, wanted, us_of(now) - DAYS * DAY_US)
        report.progress(f"{stored:,} steps stored in {time.monotonic() - began:.0f} s")
        tenths: set[int] = set()

        def progress(done: int, expected: int) -> None:
            tenth = 10 * done // max(1, expected)
            if tenth not in tenths:
                tenths.add(tenth)
                report.progress(f"{done:,} of about {expected:,} events")

        with connect(settings, readonly=True) as client:
            began, used = time.monotonic(), _cpu_s()
            found = backtest(
                client,
                Scope(now - timedelta(days=DAYS + 1), now + timedelta(days=1)),
                Timeline((policy("1.00"),)),
                Timeline((policy("0.15", {"rule": "expr", "when": "run.errors > 1"}),)),
                on_progress=progress,
            )
            took, cpu = time.monotonic() - began, _cpu_s() - used
    per_million = took * 1_000_000 / found.steps
    report.table(
        "backtest",
        ("steps", "events", "runs", "seconds", "CPU seconds", "seconds for a million"),
        [(found.steps, found.events, found.runs, took, cpu, per_million)],
    )
    report.goals.append(Goal("seconds for a million steps", per_million, MAX_S, "s"))
    report.figures |= {"backtest_seconds": took, "backtest_cpu_seconds": cpu}
    if found.events < 1.9 * found.steps:
        report.wrong.append(f"{found.events} events for {found.steps} steps")


def _store(settings: Settings, wanted: int, start_us: int) -> int:
    inserter, stored = Inserter(settings), 0
    for number, values in enumerate(batched(_ended(wanted, start_us), BATCH)):
        records = [
            Record(
                stored + place,
                value["end_time"] // 1_000,
                value["trace_id"].encode(),
                _encode(value),
                USUAL_HEADERS,
            )
            for place, value in enumerate(values)
        ]
        built = build_steps(records, Source("steps", 0), set())
        for block in built.blocks:
            inserter.insert(block, f"backtest:{number}")
        stored += len(values)
    with connect(settings) as client:
        days = client.query("SELECT DISTINCT toDate(start_time) FROM steps_raw").result_rows
        for (day,) in days:
            client.command(RUNS, parameters={"day": day})
    return stored


def _ended(wanted: int, start_us: int) -> Iterator[dict[str, Any]]:
    ended = (
        timed.event for timed in events(scenario(wanted), start_us) if timed.event["phase"] == "end"
    )
    for number, event in enumerate(ended):
        if number >= wanted:
            return
        yield event


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


if __name__ == "__main__":
    harness.run("backtest", measure, harness.parser(__doc__ or ""))
