"""What the sink's measures against memory use are worth: each measured with and without, in
processes of their own.

Rows are built and encoded as the sink does it, and nothing is sent: no Kafka, no ClickHouse.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

from benchmarks import harness
from benchmarks.harness import Report
from benchmarks.load import LoadSpec
from benchmarks.machine import pss_bytes

MIB: Final = 1 << 20
# What one generation of the window of steps holds at most.
KEYS: Final = 1_000_000


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """A row per measure."""
    rounds = 1 if report.quick else 3
    rows = []
    for name in CASES:
        for form in ("with", "without"):
            found = [_in_process(name, form, quick=report.quick) for _ in range(rounds)]
            memory = min(one["mib"] for one in found)
            cpu = min(one["cpu_s"] for one in found)
            rows.append((name, form, memory, cpu))
            report.figures |= {f"{name}_{form}_mib": memory, f"{name}_{form}_cpu_s": cpu}
    report.table("measures against memory use", ("measure", "", "MiB", "CPU s"), rows)


def _in_process(name: str, form: str, *, quick: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sink_memory", "--case", name, form]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(case: Callable[[bool, bool], object], used: bool, quick: bool) -> None:
    before, began = pss_bytes([os.getpid()]), time.process_time()
    kept = case(used, quick)
    cpu_s = time.process_time() - began
    sys.stdout.write(
        json.dumps({"mib": (pss_bytes([os.getpid()]) - before) / MIB, "cpu_s": cpu_s}) + "\n"
    )
    del kept


def _key_set(used: bool, quick: bool) -> object:
    """The keys of a full generation, filled in by batches and asked for."""
    from stepstream.sinks.clickhouse.window import PRIME, KeySet

    count = KEYS // 10 if quick else KEYS
    keys = array("Q", ((number * 0x9E3779B97F4A7C15) % PRIME for number in range(count)))
    known: Any = KeySet() if used else set()
    for start in range(0, count, 256):
        batch = list(keys[start : start + 256])
        known.intersection(batch)
        known.update(batch)
    return known


def _no_data_frames(used: bool, _quick: bool) -> object:
    """What the driver imports to make the context of an insert."""
    from clickhouse_connect.datatypes.registry import get_from_name
    from clickhouse_connect.driver.insert import InsertContext

    from stepstream.sinks.clickhouse import memory

    if used:
        memory._leave_frames_out()
    return InsertContext("t", ["a"], [get_from_name("Int64")], [[1, 2]], column_oriented=True)


def _cleared_contexts(used: bool, quick: bool) -> object:
    """Batches built and encoded one after the other; the contexts refer to themselves."""
    from stepstream.sinks.clickhouse import memory

    memory.tune()
    return _encode_batches(cleared=used, quick=quick)


def _trimmed(used: bool, quick: bool) -> object:
    """The same, with free memory given back at the end or not."""
    from stepstream.sinks.clickhouse import memory

    memory.tune()
    made = _encode_batches(cleared=True, quick=quick)
    if used:
        memory.give_back()
    return made


def _collector(used: bool, quick: bool) -> object:
    """The same with Python's collector tuned or left alone."""
    from stepstream.sinks.clickhouse import memory

    if used:
        memory.tune()
    else:
        with mock.patch.object(memory, "gc"):
            memory.tune()
    return _encode_batches(cleared=True, quick=quick)


def _encode_batches(*, cleared: bool, quick: bool) -> object:
    from concurrent.futures import ThreadPoolExecutor

    from clickhouse_connect.driver.transform import NativeTransform

    from benchmarks.store import _batches
    from stepstream.schemas.settings import Settings
    from stepstream.sinks.clickhouse.insert import Inserter
    from stepstream.sinks.clickhouse.step_rows import build_steps
    from stepstream.sinks.clickhouse.window import SeenWindow

    settings = Settings()
    spec = LoadSpec(seed=1, start_us=int(time.time() * 1e6)).sized(20_000 if quick else 100_000)
    batches = list(_batches(spec, settings))
    inserter = Inserter(settings)

    def encode(batch: Any) -> int:
        source, records = batch
        size = 0
        for block in build_steps(records, source, SeenWindow(0)).blocks:
            context = inserter._context(block, "")
            size += len(b"".join(NativeTransform.build_insert(context)))
            if cleared:
                vars(context).clear()
        return size

    with ThreadPoolExecutor(3) as pool:
        for _ in range(2 if quick else 6):
            list(pool.map(encode, batches))
    return batches


CASES: Final[dict[str, Callable[[bool, bool], object]]] = {
    "key_set": _key_set,
    "no_data_frames": _no_data_frames,
    "cleared_contexts": _cleared_contexts,
    "trimmed": _trimmed,
    "collector": _collector,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:  # one measurement, in a process of its own
        _measured(CASES[sys.argv[2]], sys.argv[3] == "with", "--quick" in sys.argv)
    else:
        harness.run("sink_memory", measure, harness.parser(__doc__ or ""))
