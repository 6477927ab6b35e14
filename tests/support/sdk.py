"""Shared by the SDK's tests: a tracer over memory, and a clock that is moved by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.util._once import Once

from stepstream.producers.instruments.instruments import Instruments
from stepstream.producers.sdk_log import LOGGER, sdk_log
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent


class HandClock:
    """Both clocks by hand: ``wall_us`` may jump, ``steady_us`` only goes on."""

    def __init__(self, wall_us: int = 1_767_225_600_000_000) -> None:
        self.wall_us = wall_us
        self.steady_us = 5_000

    def pass_us(self, us: int) -> None:
        self.wall_us += us
        self.steady_us += us

    def now_us(self) -> int:
        return self.wall_us

    def steady_ns(self) -> int:
        return self.steady_us * 1_000


class Traced:
    """A tracer and what it sent, by name of the step."""

    def __init__(self, tracer: Tracer, transport: MemoryTransport) -> None:
        self.tracer = tracer
        self.transport = transport

    @property
    def events(self) -> list[StepEvent]:
        """Everything sent."""
        assert self.tracer.flush(10)
        return self.transport.events

    @property
    def ended(self) -> dict[str, StepEvent]:
        """End events by name; names must differ."""
        ended = [event for event in self.events if event.phase == "end"]
        by_name = {event.name: event for event in ended}
        assert len(by_name) == len(ended), sorted(event.name for event in ended)
        return by_name

    def parents(self) -> dict[str, str]:
        """Name of each ended step's parent, empty for a root."""
        names = {event.step_id: event.name for event in self.events}
        return {name: names.get(event.parent_step_id, "") for name, event in self.ended.items()}


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the SDK logs inside the block, without the rate limit of earlier messages."""
    kept = _Kept()
    # The same message of an earlier test would be withheld for a minute.
    with sdk_log._lock:
        sdk_log._last.clear()
    LOGGER.addHandler(kept)
    # Expected errors would be printed, and fail tests that check the output.
    propagate, LOGGER.propagate = LOGGER.propagate, False
    try:
        yield kept.records
    finally:
        LOGGER.removeHandler(kept)
        LOGGER.propagate = propagate


@contextmanager
def traced(
    *, sound: bool = True, tracer: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Traced]:
    """A tracer of project ``shop`` over memory.

    ``sound``: nothing may go wrong inside the SDK meanwhile.
    """
    transport = (tracer or {}).get("transport") or MemoryTransport()
    settings = {"project": "shop", "agent": "support", "quiet": True, **settings}
    made = Tracer(Settings(**settings), **{**(tracer or {}), "transport": transport})
    with logged() as records:
        try:
            yield Traced(made, transport)
        finally:
            made.close(1)
    if sound:
        assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


@contextmanager
def own_tracer_provider() -> Iterator[None]:
    """A block that may set OpenTelemetry's global provider; afterwards it is as before.

    Clients such as Anthropic's make spans as soon as there is one, so a provider that stays set
    changes what later tests record.
    """
    before, once = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    # The provider can be set once only.
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    try:
        yield
    finally:
        trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = before, once


@contextmanager
def instrumented() -> Iterator[Traced]:
    """As ``traced``, with every client and framework that is installed instrumented."""
    with traced() as made:
        instruments = Instruments(made.tracer)
        instruments.on(())
        try:
            yield made
        finally:
            instruments.off()
