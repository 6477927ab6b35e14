"""The recording side of a tracer: settings, clock, encoder, sender and command listener."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from stepstream.producers.clock import Clock
from stepstream.producers.control.commands import Commands
from stepstream.producers.control.http_listener import HttpCommandListener
from stepstream.producers.control.listener import CommandListener
from stepstream.producers.exit_summary import Totals
from stepstream.producers.forks import fork_lock
from stepstream.producers.guardrails.in_force import Guardrails
from stepstream.producers.recordings.boundary import outside
from stepstream.producers.sdk_log import internal_error, sdk_log
from stepstream.producers.transport.background_sender import BackgroundSender
from stepstream.producers.transport.base import Record, Transport
from stepstream.producers.transport.delivery import SpoolPlace
from stepstream.schemas.capture import FULL, OFF, is_sampled
from stepstream.schemas.endpoint import is_http
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.step import KINDS
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.guardrails.cache import GuardrailCache
    from stepstream.producers.transport.encoder import Encoder
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.prices import PriceBook
    from stepstream.schemas.release import Release
    from stepstream.schemas.settings import Settings


class EngineSource(Protocol):
    """What a step needs of its tracer."""

    def engine(self) -> Engine | None:
        """The engine that records; None if recording is off."""


class LoadedRelease(Protocol):
    """A release, as a run needs it."""

    def now(self) -> Release:
        """The newest one that is known."""


class OpenRun(Protocol):
    """A run, as the end of the process needs it."""

    def end(self, error: BaseException | None = None) -> None:
        """End it; ``error`` is why."""


class Engine:
    """The settings in force, and everything between a step and the transport.

    Modules that the program's threads use are imported with this package, before the first step.
    Modules that only the sender's thread uses are imported in that thread, so that no step waits
    for them, and under ``forks.fork_lock``: a fork during an import would leave the child with a
    locked import.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        totals: Totals,
        *,
        transport: Transport | None = None,
        redact: Callable[[str], str] | None = None,
        prices: Sequence[Prices] = (),
        on_connect: Callable[[], None] | None = None,
        on_run: Callable[[], bool] | None = None,
    ) -> None:
        self._on_connect = on_connect
        # Called when a run begins, until it returns True.
        self._on_run = on_run
        # By agent; the tracer replaces it by its own, which outlives this engine.
        self.releases: Mapping[str, LoadedRelease] = {}
        self.settings = settings
        self.clock = clock
        # These fields are in the record of every step; a run may override some (Run._scoped).
        self.labels = {
            "project": settings.project or "default",
            "environment": settings.environment,
            "agent": settings.agent or program_name(),
            "agent_version": settings.agent_version,
        }
        # Bytes at which an input or output of each kind of step is truncated: by the limits of
        # sizes alone, and with the rules of ``capture``.
        self.content_bytes = {kind: settings.content_bytes(kind) for kind in KINDS}
        self.capture = settings.content_capture
        self.limits = {
            kind: min(limit, self.capture.by_kind.get(kind, self.capture.default))
            for kind, limit in self.content_bytes.items()
        }
        self._totals = totals
        self._prices = tuple(prices)
        self._redact = redact
        self._transport = transport
        self._encoder: Encoder | None = None
        self._price_book: PriceBook | None = None
        self._listener: CommandListener | None = None
        self.commands = Commands()
        follows = transport is None and settings.control and settings.guardrails
        self.guardrails = Guardrails(guardrail_cache(settings) if follows else None)
        if follows:
            self.guardrails.load_cached()
        # Weak references: a run that the program drops without ending it is not kept in memory.
        self._open_runs: WeakSet[OpenRun] = WeakSet()
        self.sender = BackgroundSender(
            self._encode,
            self._connect,
            max_events=settings.queue_events,
            max_bytes=settings.queue_bytes,
            other_bytes=self._encoder_bytes,
            spool=spool_place(settings) if transport is None else None,
            on_fork=self._after_fork,
        )
        self._start_recordings()
        self.publish: Callable[..., bool] = self.sender.enqueue
        """Queue a record, which the caller must not change afterwards, and the limit of its
        contents if it is not that of the settings."""

    def _start_recordings(self) -> None:
        """Record the calls of runs, if the setting ``recordings`` names a folder."""
        folder = self.settings.recordings
        if not folder and outside.boundary is None:
            return
        # Not at the top: most programs record nothing, and it would slow `import stepstream`.
        from stepstream.producers.recordings.recorder import Recorder
        from stepstream.producers.transport.redactor import hook_of

        try:
            hook = self._redact or hook_of(self.settings)
        except ValueError:
            hook = _withhold
        # A replay that is going on stays: it records nothing.
        if outside.boundary is None or isinstance(outside.boundary, Recorder):
            outside.boundary = Recorder(Path(folder)) if folder else None
        if outside.boundary is not None:
            outside.boundary.redact = hook

    def listen(self) -> None:
        """Follow the commands at the endpoint, if the setting ``control`` is on.

        Called when a run begins; returns at once.
        """
        if self._listener is None and self._transport is None and self.settings.control:
            guardrails = self.guardrails if self.settings.guardrails else None
            self._listener = new_listener(self.settings, self.commands, guardrails)
        if self._listener is not None:
            self._listener.ensure()
            if self.settings.guardrails and not self.guardrails.loaded.is_set():
                self.guardrails.wait(self.settings.guardrail_wait / 1e6)

    def stop_listening(self, *, at_exit: bool = False) -> None:
        """Close the control topic's consumer; a later run listens again."""
        if self._listener is not None:
            self._listener.close(*((0.0,) if at_exit else ()))

    def cost_of(self, record: StepRecord) -> int | None:
        """Nano-dollars that an ended step cost, for budgets; None if unknown, 0 without usage."""
        if record.cost_usd is not None:
            return nanos_from_usd(record.cost_usd)
        cost = self._loaded_prices().cost(record, None)
        return None if cost.source == "unpriced" else cost.nanos or 0

    def release_of(self, agent: str) -> Release | None:
        """The release that was loaded for an agent; None where none was."""
        loaded = self.releases.get(agent)
        return None if loaded is None else loaded.now()

    def run_began(self, run: OpenRun) -> None:
        """Note an open run, so that it can be ended when the process is terminated."""
        self._open_runs.add(run)
        if self._on_run is not None and self._on_run():
            self._on_run = None

    def run_ended(self, run: OpenRun) -> None:
        """Forget a run."""
        self._open_runs.discard(run)

    def open_runs(self) -> list[OpenRun]:
        """The runs of this process, and agents inside runs, that have not ended."""
        for _ in range(10):
            with contextlib.suppress(RuntimeError):  # another thread began a run meanwhile
                return list(self._open_runs)
        return []

    def load_prices(self) -> None:
        """Start loading the price list in a thread, for a run with a budget. Returns at once."""
        if self._price_book is None:
            with contextlib.suppress(RuntimeError):  # the interpreter shuts down
                threading.Thread(
                    target=self._load_prices, name="stepstream-prices", daemon=True
                ).start()

    def run_capture(self, trace_id: str) -> int | None:
        """The limit of a run's contents: ``OFF`` if it is not in the sample, None by settings."""
        return None if is_sampled(trace_id, self.capture.sample) else OFF

    def content_limit(self, kind: str, capture: int | None, own: int | None) -> int:
        """Bytes at which contents of a step are truncated; 0: they are not sent.

        ``own`` is what was given on the step itself, ``capture`` on the innermost step around it
        that has it given. A rule for this kind holds inside such a step too.
        """
        if own is not None:
            return min(own, self.content_bytes[kind])
        if capture is None:
            return self.limits[kind]
        rule = self.capture.by_kind.get(kind, FULL)
        return min(capture, rule, self.content_bytes[kind])

    # --- called in the sender's thread ---

    def _encode(self, record: StepRecord, max_bytes: int | None = None) -> Record:
        if self._encoder is None:
            self._encoder = self._new_encoder()
        return self._encoder(record, max_bytes)

    def _new_encoder(self) -> Encoder:
        with fork_lock.importing():
            from stepstream.producers.transport.encoder import MOST_OPEN_INPUT_BYTES, Encoder
            from stepstream.producers.transport.redactor import Redactor, hook_of
            from stepstream.producers.user_ids import user_ids_of

            redact = self._redact
            try:
                redact = redact or hook_of(self.settings)
            except ValueError as error:
                message = f"stepstream: {error}; all texts are withheld"
                sdk_log.log("redact_hook", message, level=logging.ERROR)
                redact = _withhold
            from stepstream.schemas.clamps import Limits
            from stepstream.schemas.content_limits import record_bytes
        return Encoder(
            Redactor(redact),
            self._loaded_prices,
            self.settings.max_content_bytes,
            self._totals,
            Limits(
                max_record_bytes=record_bytes(self.settings.content_bytes_by_kind),
                content_bytes_by_kind=self.settings.content_bytes_by_kind,
            ),
            capture={} if self.capture.is_full else self.limits,
            user_ids=user_ids_of(self.settings),
            max_cached_bytes=min(MOST_OPEN_INPUT_BYTES, self.settings.queue_bytes // 4),
        )

    def _encoder_bytes(self) -> int:
        return 0 if self._encoder is None else self._encoder.cached_bytes

    def _connect(self) -> Transport:
        if self._on_connect is not None:
            try:
                self._on_connect()
            except Exception as error:  # no reason to send nothing
                internal_error("connect", error)
        return new_transport(self.settings) if self._transport is None else self._transport

    def _loaded_prices(self) -> PriceBook:
        # The sender's thread and the thread of ``load_prices`` both come here: the lock admits one.
        with fork_lock.importing():
            if self._price_book is None:
                from stepstream.schemas.prices import PriceBook

                importlib.import_module("genai_prices.data")
                self._price_book = PriceBook(self._prices)
            return self._price_book

    def _load_prices(self) -> None:
        try:
            self._loaded_prices()
        except Exception as error:
            internal_error("prices", error)

    def _after_fork(self) -> None:
        """Drop the encoder in the child: the parent's sender may have been using it."""
        self._encoder = None
        self._open_runs = WeakSet()
        self._totals.reset()


def _withhold(_text: str) -> str:
    return "[withheld: there is no redact hook]"


def new_listener(
    settings: Settings, commands: Commands, guardrails: Guardrails | None = None
) -> CommandListener:
    """What follows the commands to the runs of this process, and the guardrails of policies."""
    is_gateway = is_http(settings.endpoint)
    kind = HttpCommandListener if is_gateway else CommandListener
    return kind(settings, commands, guardrails)


def guardrail_cache(settings: Settings) -> GuardrailCache | None:
    """Where the last known guardrails are kept; None if there are none and none were there."""
    from stepstream.common.settings import state_dir
    from stepstream.producers.guardrails.cache import GuardrailCache

    return GuardrailCache(state_dir(settings), destination_of(settings))


def new_transport(settings: Settings) -> Transport:
    """The transport to the endpoint of these settings. Nothing is connected yet."""
    with fork_lock.importing():
        if is_http(settings.endpoint):
            from stepstream.producers.transport.http import HttpTransport

            return HttpTransport(settings)
        from stepstream.producers.transport.kafka import KafkaTransport

        return KafkaTransport(settings)


def spool_place(settings: Settings) -> SpoolPlace | None:
    """Where the spool of these settings is; None if it is switched off."""
    if not settings.spool_bytes:
        return None
    from stepstream.common.settings import state_dir

    folder = settings.spool_dir or state_dir(settings) / "spool"
    return SpoolPlace(Path(folder) / "events.db", destination_of(settings), settings.spool_bytes)


def destination_of(settings: Settings) -> str:
    """Where events of these settings go, without secrets: the same text for the same place."""
    if is_http(settings.endpoint):
        return settings.endpoint.rstrip("/")
    brokers = sorted(one.strip() for one in settings.kafka_brokers.split(","))
    return f"kafka://{','.join(brokers)}/{settings.topic_prefix}"


def program_name() -> str:
    """The name of the running program: its file, or the package that ``python -m`` started."""
    path = Path(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else None
    if path is None:
        return "python"
    return path.parent.name if path.stem == "__main__" else path.stem or "python"
