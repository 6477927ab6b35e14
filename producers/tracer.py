"""The tracer: opens steps and sends them. The functions of the module ``stepstream`` are the methods of one of these."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from stepstream.producers.clock import SYSTEM_CLOCK, Clock
from stepstream.producers.engine import Engine
from stepstream.producers.error_guard import internal_error
from stepstream.producers.exit_summary import Totals, exit_line
from stepstream.producers.forks import call_after_fork
from stepstream.producers.opening import Opens, RunFields, StepFields
from stepstream.producers.steps import Run, Step, current
from stepstream.producers.transport.background_sender import EXIT_WAIT_S, Counts
from stepstream.producers.transport.base import Transport
from stepstream.schemas.printable import printable

if TYPE_CHECKING:
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.settings import Settings

NO_ENDPOINT: Final = (
    "stepstream: nothing is recorded: there is no endpoint. Run `stepstream up` and start this program again, "
    "or set STEPSTREAM_ENDPOINT=kafka://host:9092 (STEPSTREAM_ENABLED=false turns recording off)"
)


class Tracer(Opens):
    """Steps of one project to one endpoint. Several in one process are fine, each sees its own steps only.

    ``settings`` may be a function, called when the first step starts. ``transport`` replaces Kafka, ``redact`` is applied to
    every text after the built-in redaction, ``prices`` come before the built-in list. Nothing is opened or connected until
    the first step.
    """

    def __init__(
        self,
        settings: Settings | Callable[[], Settings],
        *,
        transport: Transport | None = None,
        redact: Callable[[str], str] | None = None,
        prices: Sequence[Prices] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._totals = Totals()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._before = Counts()
        self._clock = clock
        self._set(settings, transport, redact, prices)
        self._at_exit_registered = False
        call_after_fork(self)

    def after_fork(self) -> None:
        """In the child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def configure(
        self,
        settings: Settings | Callable[[], Settings],
        *,
        transport: Transport | None = None,
        redact: Callable[[str], str] | None = None,
        prices: Sequence[Prices] = (),
    ) -> None:
        """Start over with other settings, from the next step on. Steps that are open end where they began."""
        with self._lock:
            engine = self._engine
            self._set(settings, transport, redact, prices)
        if engine is not None:
            engine.stop_listening()
            engine.sender.close(EXIT_WAIT_S)
            self._before += engine.sender.counts

    def _set(
        self,
        settings: Settings | Callable[[], Settings],
        transport: Transport | None,
        redact: Callable[[str], str] | None,
        prices: Sequence[Prices],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._redact = redact
        self._prices = prices
        self._engine = None
        self._off = False

    # --- looking and waiting ---

    def current_step(self) -> Step | None:
        """The innermost open step of this tracer, in this thread or task."""
        step = current.get()
        while step is not None and not (step._tracer is self and step.step_id):
            step = step._outer
        return step

    def current_run(self) -> Step | None:
        """The root of the current step: the run."""
        step = self.current_step()
        while step is not None and step._parent is not None:
            step = step._parent
        return step

    @property
    def counts(self) -> Counts:
        """What became of this tracer's events."""
        engine = self._engine
        return self._before if engine is None else self._before + engine.sender.counts

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything sent so far is acknowledged; False when that took longer than ``timeout`` seconds.

        Nobody needs it in a normal program: its end waits by itself.
        """
        engine = self._engine
        return engine is None or engine.sender.flush(timeout)

    def close(self, timeout: float = EXIT_WAIT_S) -> bool:
        """Flush and let go of the connection; what is not acknowledged in time is given up. A later step opens it again."""
        engine = self._engine
        if engine is None:
            return True
        engine.stop_listening()
        return engine.sender.close(timeout)

    # --- inside ---

    def engine(self) -> Engine | None:
        """What records; None where nothing is to be recorded. Never raises."""
        engine = self._engine
        if engine is not None or self._off:
            return engine
        with self._lock:
            if self._engine is None and not self._off:
                made = None
                try:
                    made = self._made()
                except Exception as error:
                    internal_error("Tracer.engine", error)
                if self._engine is None:  # a signal handler of this thread may have been quicker
                    self._engine = made
                self._off = self._engine is None
            return self._engine

    def _made(self) -> Engine | None:
        try:
            settings = self._settings() if callable(self._settings) else self._settings
        except ValueError as error:
            _say(f"stepstream: nothing is recorded: {error}")
            return None
        if not settings.enabled:
            return None
        if self._transport is None:
            if settings.endpoint.startswith("kafka://") and not settings.kafka_brokers:
                brokers = settings.endpoint.removeprefix("kafka://").strip("/")
                settings = settings.model_copy(update={"kafka_brokers": brokers})
            if not settings.kafka_brokers:
                _say(NO_ENDPOINT)
                return None
        if not self._at_exit_registered:
            self._at_exit_registered = True
            atexit.register(self._at_exit)
        return Engine(
            settings,
            self._clock,
            self._totals,
            transport=self._transport,
            redact=self._redact,
            prices=self._prices,
        )

    def _at_exit(self) -> None:
        try:
            engine = self._engine
            if engine is None:
                return
            engine.stop_listening(at_exit=True)
            engine.sender.close(EXIT_WAIT_S if engine.sender.counts.delivered else EXIT_WAIT_S / 2)
            line = exit_line(self._totals, self.counts)
            if line and not engine.settings.quiet:
                _say(line)
        except (Exception, KeyboardInterrupt) as error:
            internal_error("exit", error)

    def _opening(self, kind: str, name: str, fields: StepFields) -> Step:
        return Step(self, None, kind, name, fields)

    def _opening_run(self, name: str, fields: RunFields) -> Run:
        return Run(self, None, "agent", name, fields)


def _say(line: str) -> None:
    """One line on stderr, if there is one."""
    if sys.stderr is not None:
        try:
            print(printable(line), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return
