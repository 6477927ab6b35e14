"""``stepstream up``: seconds until it is ready, the first time and the second, and the memory it
holds while idle."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Final

from benchmarks import harness
from benchmarks.bench import scratch_folder
from benchmarks.harness import Goal, Report
from benchmarks.machine import CpuMeter, pss_bytes
from stepstream.common.settings import load
from stepstream.local.supervisor import Pipeline

GOAL_READY_S: Final = 10.0
GOAL_PSS_MB: Final = 900.0


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Start, stop, start again on the same folder, then do nothing for a while."""
    with scratch_folder() as folder:
        settings = load(
            environ={}, file=Path(os.devnull), state_dir=str(folder), data_dir=str(folder / "data")
        )
        # The first start makes data folders, topics and the schema.
        for label in ("first", "second"):
            began = time.monotonic()
            with Pipeline(settings) as pipeline:
                report.figures[f"{label}_start_s"] = time.monotonic() - began
                report.progress(
                    f"{label} start: ready after {report.figures[f'{label}_start_s']:.1f} s"
                )
                if label == "second":
                    _idle(report, pipeline)
                stopping = time.monotonic()
            report.figures[f"{label}_stop_s"] = time.monotonic() - stopping
    starts = [
        (label, report.figures[f"{label}_start_s"], report.figures[f"{label}_stop_s"])
        for label in ("first", "second")
    ]
    report.table("the pipeline", ("start", "ready s", "stopped s"), starts)
    report.goals.append(
        Goal("ready at the second start", report.figures["second_start_s"], GOAL_READY_S, "s")
    )
    report.goals.append(
        Goal("memory while idle, PSS", report.figures["idle_pss_mb"], GOAL_PSS_MB, "MB")
    )


def _idle(report: Report, pipeline: Pipeline) -> None:
    """Memory and CPU of each process, with nothing to do."""
    seconds = 5 if report.quick else 30
    parts = {**pipeline.pids(), "supervisor": [os.getpid()]}
    time.sleep(3)
    # After some seconds: caches that the start has filled are written, and are no idle work.
    meter = CpuMeter(parts)
    time.sleep(seconds)
    used = meter.lap()
    rows = [
        (name, pss_bytes(pids) / 2**20, 100 * used[name] / seconds) for name, pids in parts.items()
    ]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    report.table("idle", ("process", "PSS MB", "% of a core"), rows)
    report.figures["idle_pss_mb"], report.figures["idle_cpu_percent_of_a_core"] = (
        rows[-1][1],
        rows[-1][2],
    )
    for name, memory, _ in rows[:-1]:
        report.figures[f"idle_{name}_pss_mb"] = memory


if __name__ == "__main__":
    harness.run("start", measure, harness.parser(__doc__ or ""))
