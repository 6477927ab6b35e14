"""Sets of policies evaluated on the same events, each in a process of its own.

Python runs one core a process: with two sets, two cores evaluate while the caller reads the store.
Few events are evaluated in the caller's process, because a process takes seconds to start.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import msgspec

from stepstream.backtest.history import Event
from stepstream.backtest.pipeline import OfflinePipeline, Outcome, Raised
from stepstream.backtest.timeline import Timeline
from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US, HOUR_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.run.limits import AssembleLimits

PARALLEL_STEPS: Final = 20_000
"""From this many steps on, processes are started."""
USAGE_US: Final = 30_000_000
"""Usage of a growing run is counted for windows so often: budgets are found so much later."""
CHUNK: Final = 1_000
"""Events that are handed over at once."""
_ENDS: Final = b""
_encode = msgspec.msgpack.Encoder().encode
_Chunk = list[tuple[int, str, bytes]]
_Found = tuple[
    list[tuple[FindingStruct, int, int]], dict[str, AlertStruct], dict[str, RunSummaryStruct]
]


class EvaluationFailed(Exception):
    """A process that evaluated policies has ended before it was done."""


class Evaluators(Protocol):
    """Sets of policies that are evaluated on the same events."""

    def take(self, events: Sequence[Event]) -> None:
        """Evaluate further events, in the order of their times."""

    def outcomes(self) -> list[Outcome]:
        """Let time pass until all runs have closed; what each set has found."""

    def close(self) -> None:
        """End what is still running."""


def offline_limits(settings: Settings) -> AssembleLimits:
    """The worker's limits. No one reads a growing run here, so it is published when it closes, its
    usage at longer intervals, and there is no restart for which its state would be kept.
    """
    limits = AssembleLimits.from_settings(settings)
    return replace(
        limits,
        revision_interval_us=HOUR_US,
        usage_interval_us=USAGE_US,
        replay_records=2**40,
    )


def evaluators(
    sets: Sequence[Timeline], prices: PriceBook | None, limits: AssembleLimits, steps: int
) -> Evaluators:
    """Evaluators for sets of policies; ``steps`` is how many steps there will be."""
    if steps >= PARALLEL_STEPS:
        return _Processes(sets, prices, limits)
    return _Here(sets, prices, limits)


def _pipeline(
    timeline: Timeline, prices: PriceBook | None, limits: AssembleLimits
) -> OfflinePipeline:
    return OfflinePipeline(
        timeline.policies,
        criteria=timeline.criteria,
        changes=timeline.changes,
        prices=prices,
        limits=limits,
    )


class _Here:
    def __init__(
        self, sets: Sequence[Timeline], prices: PriceBook | None, limits: AssembleLimits
    ) -> None:
        self._pipelines = [_pipeline(one, prices, limits) for one in sets]

    def take(self, events: Sequence[Event]) -> None:
        for pipeline in self._pipelines:
            for event in events:
                pipeline.event(event.trace_id, event.value, event.at_us)

    def outcomes(self) -> list[Outcome]:
        for pipeline in self._pipelines:
            pipeline.finish(DAY_US)
        return [pipeline.outcome for pipeline in self._pipelines]

    def close(self) -> None:
        """Nothing runs."""


class _Processes:
    def __init__(
        self, sets: Sequence[Timeline], prices: PriceBook | None, limits: AssembleLimits
    ) -> None:
        # spawn: a fork of a process with threads (ClickHouse's client) may deadlock.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for timeline in sets:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_evaluate, args=(theirs, timeline, prices, limits), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def take(self, events: Sequence[Event]) -> None:
        self._send(_encode([(one.at_us, one.trace_id, one.value) for one in events]))

    def _send(self, chunk: bytes) -> None:
        for pipe in self._pipes:
            try:
                pipe.send_bytes(chunk)
            except OSError as error:
                raise EvaluationFailed(self._why()) from error

    def outcomes(self) -> list[Outcome]:
        self._send(_ENDS)
        found = []
        for pipe in self._pipes:
            try:
                found.append(_outcome(pipe.recv_bytes()))
            except (EOFError, OSError) as error:
                raise EvaluationFailed(self._why()) from error
        return found

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(2)
            if process.is_alive():
                process.terminate()

    def _why(self) -> str:
        codes = ", ".join(str(process.exitcode) for process in self._processes)
        return (
            f"a process that evaluates policies has ended (exit codes: {codes}); is there enough "
            "memory? A shorter --since needs less"
        )


def _evaluate(
    pipe: Connection, timeline: Timeline, prices: PriceBook | None, limits: AssembleLimits
) -> None:
    """The process: chunks of events in, the outcome out."""
    pipeline = _pipeline(timeline, prices, limits)
    decode = msgspec.msgpack.Decoder(_Chunk).decode
    # The other side is gone, or Ctrl-C was pressed: the outcome is not needed.
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while chunk := pipe.recv_bytes():
            for at_us, trace_id, value in decode(chunk):
                pipeline.event(trace_id, value, at_us)
        pipeline.finish(DAY_US)
        pipe.send_bytes(_encode(_plain(pipeline.outcome)))


def _plain(outcome: Outcome) -> Any:
    raised = [(one.finding, one.cost_nanos, one.steps) for one in outcome.raised]
    return (raised, outcome.alerts, outcome.runs)


def _outcome(data: bytes) -> Outcome:
    raised, alerts, runs = msgspec.msgpack.decode(data, type=_Found)
    return Outcome(raised=[Raised(*one) for one in raised], alerts=alerts, runs=runs)
