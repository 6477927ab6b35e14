"""Every question at 3 million steps (30 million with ``--most-steps``): time and parts read.

Steps are made of a realistic load, copied over a week; runs are added up from them. The parts that
a query reads are those of ClickHouse's own EXPLAIN, compared with the parts of the days of its
window; rows, bytes and CPU time are the differences of its counters (system.events). The embedded
server states the size of the result, and not what was read, in the headers of an answer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from benchmarks import harness
from benchmarks.bench import scratch_folder
from benchmarks.harness import Goal, Report
from benchmarks.load import LoadSpec, make_load
from benchmarks.multiply import Multiplier
from stepstream import queries
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.queries.ask import answered, prepared
from stepstream.queries.question import rows_of, used_parameters
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.records import USUAL_HEADERS, Record, Source
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.step_rows import build_steps

SIZES: Final = (3_000_000, 30_000_000)
QUICK: Final = (100_000,)
EVENTS: Final = {False: 400_000, True: 40_000}
GOALS_MS: Final = {3_000_000: 100.0, 30_000_000: 1_000.0}
REPEATS: Final = 5
BATCH: Final = 20_000
COUNTERS: Final = ("SelectedRows", "SelectedBytes", "OSCPUVirtualTimeMicroseconds")
# Questions that read texts: their time is reported without a goal.
LARGE: Final = frozenset({"search"})

# As trajectories would be: one row a run, with what the questions read.
RUNS: Final = """
INSERT INTO runs_raw (run_day, trace_id, revision, status, closed, project, environment, agent,
    agent_version, task, session_id, user_id, root_step_id, name, start_time, end_time, duration_us,
    first_append_time, last_append_time, steps, ended_steps, error_steps, llm_calls, tool_calls,
    unpriced_steps, input_tokens, output_tokens, cost_usd, tools, models, path, append_time,
    kafka_topic_id, kafka_partition, kafka_offset)
SELECT toDate(min(s.append_time)), s.trace_id, 2 * count(),
    argMin(s.status, s.parent_step_id), true, any(s.project), any(s.environment),
    argMin(s.agent, s.parent_step_id), argMin(s.agent_version, s.parent_step_id),
    argMin(s.task, s.parent_step_id), any(s.session_id), any(s.user_id),
    argMin(s.step_id, s.parent_step_id), argMin(s.name, s.parent_step_id),
    min(s.start_time), max(s.end_time), dateDiff('microsecond', min(s.start_time), max(s.end_time)),
    min(s.append_time), max(s.append_time), count(), count(), countIf(s.status = 'error'),
    countIf(s.kind = 'llm_call'), countIf(s.kind = 'tool_call'),
    countIf(s.cost_source = 'unpriced'), sum(s.input_tokens), sum(s.output_tokens),
    sum(ifNull(s.cost_usd, 0)), arrayFilter(x -> x != '', groupUniqArray(s.tool)),
    arrayFilter(x -> x != '', groupUniqArray(s.model)),
    arrayMap(x -> x.2, arraySort(groupArray((s.start_time, concat(s.kind, ' ', s.name))))),
    max(s.append_time), 'copy', 0, 0
FROM steps_raw AS s
WHERE toDate(s.start_time) = {day:Date}
GROUP BY s.trace_id
SETTINGS max_partitions_per_insert_block = 0, insert_deduplicate = 0"""


@dataclass(frozen=True)
class Parts:
    """Parts of a table that a query reads, and those of the days that it asks about."""

    read: int
    needed: int
    total: int


@dataclass(frozen=True)
class Asked:
    """A question asked several times, with what ClickHouse counted."""

    took_ms: list[float]
    answers: int
    parts: Parts
    rows_read: float
    bytes_read: float
    cpu_ms: float


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Fill the store up to each size and ask everything."""
    spec = LoadSpec(seed=arguments.seed, start_us=int(time.time() * 1e6) - 3_600_000_000)
    with scratch_folder() as folder, EmbeddedClickHouse(folder / "clickhouse") as store:
        settings = Settings(clickhouse_url=store.writer_url, clickhouse_database="questions")
        migrate(settings)
        _insert(settings, spec.sized(EVENTS[report.quick]))
        with connect(settings, timeout_s=900) as client:
            multiplier = Multiplier(client)
            for size in QUICK if report.quick else SIZES:
                if size <= arguments.most_steps:
                    report.progress(f"filling up to {size:,} steps")
                    _fill(client, multiplier, size)
                    _ask_all(report, client, size)


def _insert(settings: Settings, spec: LoadSpec) -> None:
    load = make_load(spec)
    records = [
        Record(offset, spec.start_us // 1_000, bytes(key), bytes(value), USUAL_HEADERS)
        for offset, (key, value) in enumerate(zip(load.keys, load.values, strict=True))
    ]
    inserter = Inserter(settings)
    for start in range(0, len(records), BATCH):
        built = build_steps(records[start : start + BATCH], Source("bench", 0), set())
        for block in built.blocks:
            inserter.insert(block, f"{block.table.name}:{start}")


def _fill(client: Client, multiplier: Multiplier, size: int) -> None:
    multiplier.fill(size)
    client.command("TRUNCATE TABLE runs_raw")
    for (day,) in client.query("SELECT DISTINCT toDate(start_time) FROM steps_raw").result_rows:
        client.command(RUNS, parameters={"day": day})
    # Merged as a store is that has been running: the queries alone are measured.
    for table in ("steps_raw", "runs_raw", "rollup_1h"):
        client.command(f"OPTIMIZE TABLE {table}")
    client.command("SYSTEM STOP MERGES")


def _ask_all(report: Report, client: Client, size: int) -> None:
    count = int(str(client.command("SELECT count() FROM steps_raw")))
    rows = []
    for name, given in _asked(client):
        one = _timed(client, name, given)
        parts = one.parts
        label = " ".join([name, *(str(given[key]) for key in ("by",) if key in given)])
        took_ms, goal_ms = median(one.took_ms), GOALS_MS.get(size)
        rows.append(
            (label, count, took_ms, max(one.took_ms),
             "" if goal_ms is None or name in LARGE else goal_ms, one.answers,
             parts.read, parts.needed, parts.total, one.rows_read, one.bytes_read / 1e6, one.cpu_ms)
        )  # fmt: skip
        report.figures[f"{label.replace(' ', '_')}_{size}_ms"] = took_ms
        if parts.read > parts.needed:
            report.notes.append(f"{label} reads {parts.read} parts, its window has {parts.needed}")
        if goal_ms is not None and name not in LARGE:
            report.goals.append(Goal(f"{label}, {size:,} steps", took_ms, goal_ms, "ms"))
    columns = ("question", "steps", "median ms", "max ms", "goal ms", "rows", "parts read",
               "needed", "all", "rows read", "MB read", "CPU ms")  # fmt: skip
    report.table("questions, window of 24 hours", columns, rows)
    client.command("SYSTEM START MERGES")


def _asked(client: Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every question with parameters for which there is an answer."""
    run, agent, user, session = client.query(
        "SELECT trace_id, agent, user_id, session_id FROM runs WHERE steps > 20 "
        "AND start_time > now() - INTERVAL 20 HOUR ORDER BY trace_id LIMIT 1"
    ).result_rows[0]
    found = client.query("SELECT DISTINCT agent_version FROM runs LIMIT 2")
    versions = [row[0] for row in found.result_rows]
    about = {
        "text": "timeout",
        "user": user,
        "session": session,
        "old": versions[0],
        "new": versions[-1],
    }
    for question in queries.QUESTIONS.values():
        required = (one.name for one in question.parameters if one.is_required)
        given = {name: about.get(name, "") for name in required}
        if any(one.kind == "run" for one in question.parameters):
            given["run"] = run
        if question.name == "versions":
            given["agent"] = agent
        yield question.name, given
        if question.name == "cost":
            yield from (("cost", {"by": by}) for by in ("model", "task", "user"))


def _timed(client: Client, name: str, given: dict[str, Any]) -> Asked:
    rows, took, answer = rows_of(client), [], None
    before = _counters(client)
    for _ in range(REPEATS):
        began = time.monotonic()
        what = prepared(rows, name, given, datetime.now(UTC))
        answer = answered(what, rows)
        took.append((time.monotonic() - began) * 1_000)
    assert answer is not None
    after = _counters(client)
    counted = [(after.get(name, 0) - before.get(name, 0)) / REPEATS for name in COUNTERS]
    used = used_parameters(what.sql, what.values)
    return Asked(
        took,
        len(answer),
        _parts(client, what.sql, used),
        counted[0],
        counted[1],
        counted[2] / 1_000,
    )


def _counters(client: Client) -> dict[str, int]:
    """ClickHouse's own counters of what was read since its start. Merges are stopped meanwhile."""
    found = client.query(
        "SELECT event, value FROM system.events WHERE event IN {names:Array(String)}",
        parameters={"names": list(COUNTERS)},
    )
    return {name: int(value) for name, value in found.result_rows}


def _parts(client: Client, sql: str, values: dict[str, Any]) -> Parts:
    """Parts of steps_raw that are left after all conditions, by ClickHouse's own plan."""
    plan = json.loads(
        client.query(f"EXPLAIN indexes = 1, json = 1 {sql}", parameters=values).result_rows[0][0]
    )
    read = [_parts_read(node) for node in _nodes(plan) if _reads_steps(node)]
    since = values.get("since")
    day = datetime.now(UTC) - timedelta(days=1) if since is None else datetime.fromisoformat(since)
    (needed, total) = client.query(
        "SELECT countIf(partition >= {day:String}), count() FROM system.parts WHERE active "
        "AND database = currentDatabase() AND table = 'steps_raw'",
        parameters={"day": f"{day:%Y-%m-%d}"},
    ).result_rows[0]
    # A run is found by its id in all days: an index of ids answers, not the partitions.
    return Parts(max(read, default=0), needed if since else total, total)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def _reads_steps(node: dict[str, Any]) -> bool:
    return "Indexes" in node and "steps_raw" in str(node.get("Description", ""))


def _parts_read(node: dict[str, Any]) -> int:
    found = [index["Selected Parts"] for index in node["Indexes"] if "Selected Parts" in index]
    return int(min(found, default=0))


def flags() -> argparse.ArgumentParser:
    """Its own flags next to the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument(
        "--most-steps",
        type=int,
        default=SIZES[0],
        help="the largest size that is measured (default %(default)s; 30000000 needs 10 GB)",
    )
    return made


if __name__ == "__main__":
    harness.run("questions", measure, flags())
