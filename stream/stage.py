"""A stage of the worker: one piece of pure logic per assigned partition, fed with batches, its outputs sent, its floor kept.

A rebalance drops everything: what a partition needs is loaded again from Kafka before its first record is handled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from faust.types import TP

from stepstream.stream.floor import Floor
from stepstream.stream.outputs import Output
from stepstream.stream.sender import Sender
from stepstream.stream.state_index import StateIndex
from stepstream.stream.transport import Floors

log = logging.getLogger("stepstream.worker")


class Logic(Protocol):
    """What a stage does with one partition. Pure."""

    floor: Floor

    def feed(self, record: Any) -> None:
        """Process one record."""

    def flush(self) -> None:
        """After a batch, or after a tick."""

    def tick(self, time_us: int) -> None:
        """Everything up to the high watermark was fed, and this is the wall time of the fetch that said so."""

    def drain(self) -> list[Output]:
        """What is to be sent."""

    def acknowledged(self, output: Output) -> None:
        """Kafka has it."""


Load = Callable[[int], Awaitable[tuple[Logic, StateIndex | None]]]


class Shell:
    """A partition's logic under one assignment; dead once the assignment is gone."""

    def __init__(self, tp: TP, generation: int, sender: Sender, floors: Floors) -> None:
        self.tp = tp
        self.generation = generation
        self.alive = True
        self.logic: Logic | None = None
        self._index: StateIndex | None = None
        self._started_at = 0
        self._sender = sender
        self._floors = floors

    def loaded(self, logic: Logic, index: StateIndex | None) -> None:
        """The logic is restored and may be fed."""
        self.logic, self._index = logic, index
        self._started_at = logic.floor.value

    def pump(self) -> None:
        """Send what the logic wants sent, and note the floor."""
        if self.logic is None:
            return
        for output in self.logic.drain():
            self._sender.send(output, self._acknowledged)
        self.note_floor()

    def note_floor(self) -> None:
        """Publish the floor for the next commit."""
        if not self.alive or self.logic is None:
            return
        floor = self.logic.floor.value
        if floor > self._started_at:
            metadata = self._index.metadata(floor) if self._index is not None else ""
            self._floors[self.tp] = (floor, metadata)

    def _acknowledged(self, output: Output, offset: int) -> None:
        if not self.alive or self.logic is None:
            return
        if self._index is not None and output.topic == "state":
            run = output.holder.run
            self._index.written(run.trace_id, offset, closed=run.closed, closed_at_us=run.closed_at_us)
        self.logic.acknowledged(output)


class Stage:
    """All partitions of one topic that are assigned to this worker."""

    def __init__(self, topic: str, sender: Sender, floors: Floors, load: Load) -> None:
        self.topic = topic
        self.shells: dict[int, Shell] = {}
        self._sender = sender
        self._floors = floors
        self._load = load
        self._ready: dict[int, asyncio.Task[None]] = {}

    def revoke(self) -> None:
        """Drop everything: a rebalance reads every partition again."""
        for shell in self.shells.values():
            shell.alive = False
            self._floors.pop(shell.tp, None)
        for task in self._ready.values():
            task.cancel()
        self.shells.clear()
        self._ready.clear()

    def assign(self, tps: Sequence[TP], generation: int) -> None:
        """Begin to load the partitions of this topic."""
        self.revoke()
        for tp in tps:
            if tp.topic == self.topic:
                shell = self.shells[tp.partition] = Shell(tp, generation, self._sender, self._floors)
                self._ready[tp.partition] = asyncio.create_task(self._restore(shell), name=f"load {tp.topic} {tp.partition}")

    async def handle(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        """Feed a batch. Returns early when its assignment is gone."""
        shell = self.shells.get(tp.partition)
        if shell is None or shell.generation != generation:
            return
        await self.wait_ready(tp.partition)
        logic = shell.logic
        if logic is None or not shell.alive:
            return
        for record in records:
            logic.feed(record)
        logic.flush()
        shell.pump()
        while self._sender.is_full:
            self._sender.poll()
            await asyncio.sleep(0.001)

    async def wait_ready(self, partition: int) -> None:
        """Wait until a partition's logic is loaded. Raises what loading raised."""
        task = self._ready.get(partition)
        if task is not None and not (task.done() and task.exception() is None):
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def failures(self) -> BaseException | None:
        """What loading a partition raised, if anything did."""
        for task in self._ready.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    def tick(self, caught_up_at: Callable[[TP, int], int]) -> None:
        """Let time pass. ``caught_up_at(tp, position)`` is the wall time of a fetch that found no more, else 0."""
        for shell in self.shells.values():
            if shell.logic is None:
                continue
            time_us = caught_up_at(shell.tp, shell.logic.floor.position)
            if time_us:
                shell.logic.tick(time_us)
                shell.logic.flush()
            shell.pump()

    async def _restore(self, shell: Shell) -> None:
        logic, index = await self._load(shell.tp.partition)
        if shell.alive:
            shell.loaded(logic, index)
            log.info("ready: %s partition %d from offset %d", shell.tp.topic, shell.tp.partition, logic.floor.position)
