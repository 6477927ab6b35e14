"""The worker as a benchmark runs it: the real one, waiting at a gate until all is ready, with a
report of what it has done so far.

``python -m benchmarks.worker_process SETTINGS_JSON [--empty]``; ``--empty`` replaces the assemble
stage by one that does nothing, which leaves the cost of transport and framework.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from typing import Any

import uvloop

from benchmarks.child import Answer, Child, serve
from stepstream.schemas.settings import Settings
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import Output
from stepstream.stream.shell.partition_loader import PartitionLoader
from stepstream.stream.shell.partition_runner import Restored
from stepstream.stream.shell.worker import SWITCH_S, Worker


def start(settings: Settings, *, empty: bool = False) -> Child:
    """The parent's side: ``ask(do="go")`` opens the gate, ``ask(do="status")`` reports; closing it
    ends it."""
    return Child.module(
        "benchmarks.worker_process", settings.model_dump_json(), *(["--empty"] if empty else [])
    )


class GatedLoader(PartitionLoader):
    """Loads partitions of steps once a gate is open."""

    def __init__(self, worker: Worker, gate: threading.Event, *, empty: bool) -> None:
        super().__init__(worker)
        self._counters = worker.counters
        self._gate = gate
        self._empty = empty

    async def assemble(self, partition: int) -> Restored:
        """A partition of steps, or a processor that does nothing in its place."""
        await asyncio.to_thread(self._gate.wait)
        restored = await super().assemble(partition)
        return (
            Restored(EmptyProcessor(self._counters), restored.ledger) if self._empty else restored
        )


class GatedWorker(Worker):
    """Reads no step before the gate opens."""

    def __init__(self, settings: Settings, gate: threading.Event, *, empty: bool) -> None:
        super().__init__(settings)
        self._gate = gate
        self._empty = empty

    def partition_loader(self) -> PartitionLoader:
        """A loader that waits for the gate."""
        return GatedLoader(self, self._gate, empty=self._empty)

    def status(self) -> Answer:
        """How far it is, and the CPU time of the process."""
        counters = self.counters
        sender = getattr(self, "sender", None)
        return {
            "at_s": time.monotonic(),
            "cpu_s": time.process_time(),
            "records": counters.records,
            "runs_opened": counters.runs_opened,
            "runs_closed": counters.runs_closed,
            "in_flight": sender.in_flight if sender is not None else 0,
            "counts": counters.nonzero(),
            "collections": [generation["collections"] for generation in gc.get_stats()],
        }


class EmptyProcessor:
    """A processor that only counts."""

    def __init__(self, counters: Counters) -> None:
        self.offsets = OffsetTracker()
        self._counters = counters

    def process(self, record: Any) -> None:
        self._counters.records += 1
        self.offsets.position = record.offset + 1

    def flush(self) -> None: ...

    def tick(self, time_us: int) -> None: ...

    def disturb(self) -> None: ...

    def skip(self, record: Any, detail: str) -> None: ...

    def take_outputs(self) -> list[Output]:
        return []

    def acknowledged(self, output: Output) -> None: ...

    def delay_timers(self) -> None:
        """Nothing."""

    @property
    def offset_in_progress(self) -> int:
        return self.offsets.position - 1


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_S)
    gate = threading.Event()
    worker = GatedWorker(
        Settings.model_validate_json(sys.argv[1]), gate, empty="--empty" in sys.argv
    )

    def go() -> Answer:
        gate.set()
        return worker.status()

    def listen() -> None:
        serve({"go": go, "status": worker.status})
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        os._exit(runner.run(worker.run()))


if __name__ == "__main__":
    main()
