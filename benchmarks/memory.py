"""Memory of open runs: what a worker's logic grows by as it holds many runs at once, by run and by
step. No Kafka, no faust.

Each run has a root that is open and steps that have ended, with contents of their own; all of them
advance side by side. Then every run ends and closes, and what is kept of closed runs (their states,
for late steps) is measured too.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
from collections.abc import Iterator
from typing import Final

from benchmarks import harness
from benchmarks.harness import Report
from benchmarks.logic import make_stage
from benchmarks.machine import pss_bytes
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.core.records import LogRecord

CHUNK: Final = 500
RATE: Final = 40_000
TOOLS: Final = ("search_docs", "lookup_order", "refund", "send_mail", "read_file", "run_query")
MODELS: Final = ("gpt-4o", "gpt-4o-mini", "claude-3-5-haiku-latest")

_START: Final = (
    '{{"trace_id":"{run}","step_id":"{step}","phase":"start","kind":"agent","name":"support","project":"shop",'
    '"environment":"prod","agent":"support","agent_version":"1.2.0","task":"refund","session_id":"s-{tail}",'
    '"user_id":"u-{tail}","start_time":{at}}}'
)
_END: Final = (
    '{{"trace_id":"{run}","step_id":"{step}","parent_step_id":"{root}","kind":"{kind}","name":"{name}","{field}":"{name}",'
    '"project":"shop","environment":"prod","agent":"support","agent_version":"1.2.0","task":"refund","start_time":{at},'
    '"end_time":{end},"usage":{{"input_tokens":{tokens},"output_tokens":{fewer}}},"cost_usd":"0.000{tokens}",'
    '"input":"{text}","output":"{text} {step}"}}'
)
_ROOT_END: Final = (
    '{{"trace_id":"{run}","step_id":"{step}","kind":"agent","name":"support","project":"shop","agent":"support",'
    '"start_time":{at},"end_time":{end}}}'
)


class Runs:
    """Runs side by side: the records of their beginnings, of all their steps in turn, and of their
    ends."""

    def __init__(self, count: int, steps: int, seed: int) -> None:
        rng = random.Random(seed)
        self._rng = rng
        self._steps = steps
        self._began_us = int(time.time() * 1e6)
        self._ids = [
            (f"{rng.getrandbits(128) | 1:032x}", f"{rng.getrandbits(64) | 1:016x}")
            for _ in range(count)
        ]
        self._offset = 0

    def open(self) -> Iterator[LogRecord]:
        """Every run's start, then each of its other steps."""
        for run, root in self._ids:
            yield self._record(run, _START, step=root, tail=run[:10])
        for _ in range(self._steps - 1):
            for run, root in self._ids:
                yield self._record(run, _END, root=root, **self._call())

    def end(self) -> Iterator[LogRecord]:
        """The end of every run."""
        for run, root in self._ids:
            yield self._record(run, _ROOT_END, step=root)

    def _call(self) -> dict[str, object]:
        rng = self._rng
        is_tool = rng.random() < 0.5
        kind, field, names = (
            ("tool_call", "tool", TOOLS) if is_tool else ("llm_call", "model", MODELS)
        )
        tokens = rng.randrange(1_000, 9_000)
        step = f"{rng.getrandbits(64) | 1:016x}"
        return {"step": step, "kind": kind, "field": field, "name": rng.choice(names),
        "tokens": tokens, "fewer": tokens // 9,
                "text": step * 12}  # fmt: skip

    def _record(self, run: str, form: str, **parts: object) -> LogRecord:
        self._offset += 1
        at_us = self._began_us + self._offset * 1_000_000 // RATE
        value = form.format(run=run, at=at_us - 5_000, end=at_us, **parts).encode()
        return LogRecord(self._offset - 1, at_us // 1000, run.encode(), value)


def play(stage: AssemblePartition, records: Iterator[LogRecord]) -> tuple[int, int]:
    """Process all of it as a worker does; every output is acknowledged at once.

    Returns records and bytes.
    """
    count = size = 0
    for record in records:
        stage.process(record)
        count, size = count + 1, size + len(record.value or b"")
        if count % CHUNK == 0:
            _pump(stage)
    _pump(stage)
    return count, size


def _pump(stage: AssemblePartition) -> None:
    stage.flush()
    for _ in range(3):  # outputs, the state record after them, the outputs that waited for it
        for output in stage.take_outputs():
            stage.acknowledged(output)
    stage.offsets.safe  # noqa: B018  (the shell asks for it after each chunk)


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Open all runs, then close them."""
    count = arguments.runs or (5_000 if report.quick else 100_000)
    steps: int = arguments.steps
    runs = Runs(count, steps, arguments.seed)
    # No run may be closed because of memory: it is what is measured.
    stage = make_stage(max_held_bytes=2**40)
    gc.collect()
    gc.freeze()
    # As the worker sets them: with Python's own, collections would take most of the time.
    gc.set_threshold(50_000, 20, 100)
    before = pss_bytes([os.getpid()])
    read, raw_bytes = play(stage, runs.open())
    report.progress(f"{read:,} records read, {len(stage.runs):,} runs open")
    grown = pss_bytes([os.getpid()]) - before
    rows = [
        (
            "open",
            len(stage.runs),
            grown / 1e6,
            grown / count,
            grown / count / steps,
            grown / raw_bytes,
        )
    ]
    report.figures |= {
        "open_runs": len(stage.runs),
        "steps_per_run": steps,
        "open_mb": grown / 1e6,
        "open_bytes_per_run": grown / count,
        "open_bytes_per_step": grown / count / steps,
        "counted_bytes": stage.size_bytes,
    }
    report.ratios["open_to_their_records"] = grown / raw_bytes
    # The worker bounds what it counts: the ratio shows how far that is the process's growth.
    report.ratios["counted_to_grown"] = stage.size_bytes / grown
    began = time.perf_counter()
    gc.collect()
    report.figures["full_collection_s"] = time.perf_counter() - began
    _close(stage, runs)
    gc.collect()
    kept = pss_bytes([os.getpid()]) - before
    rows.append(
        (
            "closed, kept for late steps",
            len(stage.closed),
            kept / 1e6,
            kept / count,
            kept / count / steps,
            kept / raw_bytes,
        )
    )
    report.figures |= {
        "closed_runs": len(stage.closed),
        "closed_mb": kept / 1e6,
        "closed_bytes_per_run": kept / count,
    }
    title = f"memory of {count:,} runs of {steps} steps"
    report.table(title, ("", "runs", "MB", "bytes/run", "bytes/step", "to their records"), rows)
    if len(stage.runs) or report.figures["open_runs"] != count:
        report.wrong.append(
            f"{len(stage.runs)} runs did not close, {report.figures['open_runs']} of {count} were "
            "open"
        )


def _close(stage: AssemblePartition, runs: Runs) -> None:
    play(stage, runs.end())
    for _ in range(4):
        stage.tick(stage.clock.now_us + 1_500_000)
        _pump(stage)
    stage.tick(stage.clock.now_us + 20_000_000)
    _pump(stage)


def flags() -> argparse.ArgumentParser:
    """Its own flags and the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument("--runs", type=int, default=0, help="runs open at once (default 100,000)")
    made.add_argument("--steps", type=int, default=10, help="steps of each (default %(default)s)")
    return made


if __name__ == "__main__":
    harness.run("memory", measure, flags())
