"""A topic stage over a sender whose acknowledgements are given by the test."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from faust.types import TP

from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold, Output
from stepstream.stream.core.poison import PoisonLedger
from stepstream.stream.shell.partition_runner import Restored
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.topic_stage import TopicStage
from tests.support.stream_world import START_US, Rec

STEPS = TP("steps", 0)


class Processor:
    """Sends one output for each record, which is needed until it is acknowledged."""

    def __init__(self, position: int = 0) -> None:
        self.offsets = OffsetTracker(position)
        self.fed: list[int] = []
        self.ticks: list[int] = []
        self.disturbed = 0
        self._outbox: list[Output] = []

    def process(self, record: Rec) -> None:
        self.fed.append(record.offset)
        self.offsets.position = record.offset + 1
        hold = OffsetHold()
        self.offsets.hold(hold, record.offset)
        self._outbox.append(Output("findings", b"k", b"v", owner=hold))

    def flush(self) -> None: ...

    def tick(self, time_us: int) -> None:
        self.ticks.append(time_us)

    @property
    def offset_in_progress(self) -> int:
        return self.offsets.position - 1

    def delay_timers(self) -> None:
        self.disturbed += 1

    def skip(self, record: Rec, detail: str) -> None: ...

    def take_outputs(self) -> list[Output]:
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        self.offsets.release(output.owner)


class World:
    """A stage over a sender whose acknowledgements are given by hand."""

    def __init__(self) -> None:
        self.is_full = False
        self.sent: list[tuple[Output, Any]] = []
        self.safe_offsets: dict[TP, tuple[int, str]] = {}
        self.logics: list[Processor] = []
        # Closed by a test that needs a partition which is still being loaded.
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.brokers_failed = False
        self.missed = False
        self.counted: list[str] = []
        self.checked: list[tuple[TP, int, int]] = []
        self.stage = TopicStage(
            "steps",
            # World is the sender and the observer as well: their methods are few, and tests see the
            # calls.
            cast(Sender, self),
            self.safe_offsets,
            self.load,
            self,
            brokers_failed=lambda _tp: self.brokers_failed,
            has_records=self.is_missed,
        )

    async def is_missed(self, tp: TP, start: int, end: int) -> bool:
        self.checked.append((tp, start, end))
        return self.missed

    async def load(self, partition: int) -> Restored:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.logics.append(Processor())
        return Restored(self.logics[-1], PoisonLedger("steps", partition, "state"))

    def send(self, output: Output, acknowledge: Any) -> None:
        self.sent.append((output, acknowledge))

    def poll(self) -> None:
        self.is_full = False

    def acknowledge(self, count: int) -> None:
        for output, acknowledged in self.sent[:count]:
            acknowledged(output, 0)
        del self.sent[:count]

    # the observer's methods
    def batch(self, records: int) -> None: ...
    def waited(self) -> None: ...
    def delivered(self, output: Output) -> None: ...
    def count(self, counter: str) -> None:
        self.counted.append(counter)

    async def assigned(self, generation: int = 1) -> Processor:
        self.stage.assign([STEPS, TP("other", 0)], generation)
        await self.stage.wait_ready(0)
        return self.logics[-1]


def records(first: int, count: int) -> list[Rec]:
    return [Rec(first + index, START_US // 1000, b"k", b"v") for index in range(count)]
