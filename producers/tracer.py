"""The tracer: opens steps and owns the engine that records them.

The functions of the module ``stepstream`` are the methods of one tracer.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from stepstream.producers.clock import SYSTEM_CLOCK, Clock
from stepstream.producers.engine import Engine
from stepstream.producers.exit_summary import Totals, exit_line
from stepstream.producers.forks import call_after_fork
from stepstream.producers.opening import RunFields, StepFields, StepOpener
from stepstream.producers.remote import (
    ContinuedRun,
    RemoteStep,
    context_from,
    with_parent,
)
from stepstream.producers.sdk_log import internal_error, suppressed
from stepstream.producers.sigterm import FLUSH_S, Terminated, end_runs_on_sigterm
from stepstream.producers.steps import OPEN, Run, Step, current
from stepstream.producers.threads import keep_steps_in_pools, keep_steps_in_threads
from stepstream.producers.transport.background_sender import EXIT_WAIT_S, BackgroundSender, Counts
from stepstream.producers.transport.base import Transport
from stepstream.schemas.endpoint import is_http
from stepstream.schemas.printable import printable

if TYPE_CHECKING:
    from stepstream.producers.guardrails.in_force import GuardrailStatus
    from stepstream.producers.releases.agent_release import AgentRelease, ReleaseLoader
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.settings import Settings

NO_ENDPOINT: Final = (
    "stepstream: nothing is recorded: there is no endpoint. "
    "Run `stepstream up` and start this program again, "
    "or set STEPSTREAM_ENDPOINT=kafka://host:9092 or https://gateway "
    "(STEPSTREAM_ENABLED=false turns recording off)"
)


class Tracer(StepOpener[Step, Run]):
    """Records the steps of one project to one endpoint. Tracers are independent of one another.

    ``settings`` may be a function, which is called when the first step starts. ``transport``
    replaces Kafka, ``redact`` is applied to every text after the built-in redaction, ``prices``
    take precedence over the built-in list. Nothing is connected before the first step.
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
        # The senders that were replaced by ``configure`` and have events in the spool, and the
        # counts of the others.
        self._replaced: list[BackgroundSender] = []
        self._before = Counts()
        self._clock = clock
        self._set(settings, transport, redact, prices)
        self._at_exit_registered = False
        self._sources: list[Callable[[], object]] = []
        self._releases: dict[str, ReleaseLoader] = {}
        call_after_fork(self)

    def _add_source(self, publish: Callable[[], object]) -> None:
        """Call ``publish`` before every flush and at the end: it publishes what it has queued."""
        self._sources.append(publish)

    def _publish_sources(self) -> None:
        for publish in self._sources:
            try:
                publish()
            except Exception as error:
                internal_error("Tracer.flush", error)

    def after_fork(self) -> None:
        """Replace the lock in the child: another thread may have owned it."""
        self._lock = threading.RLock()

    def configure(
        self,
        settings: Settings | Callable[[], Settings],
        *,
        transport: Transport | None = None,
        redact: Callable[[str], str] | None = None,
        prices: Sequence[Prices] = (),
    ) -> None:
        """Use other settings from the next step on. Open steps are recorded with the old ones."""
        with self._lock:
            engine = self._engine
            self._set(settings, transport, redact, prices)
        if engine is not None:
            engine.stop_listening()
            engine.sender.close(EXIT_WAIT_S)
            self._count_replaced(engine.sender)

    def _count_replaced(self, sender: BackgroundSender) -> None:
        with self._lock:
            self._replaced.append(sender)
            for one in list(self._replaced):
                if not one.counts.spooled:
                    self._replaced.remove(one)
                    self._before += one.counts

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

    # --- current step, waiting ---

    def current_step(self) -> Step | None:
        """The innermost open step of this tracer in this thread or task; None if there is none."""
        step = current.get()
        while step is not None and not (step._tracer is self and step.step_id):
            step = step._outer
        return None if step is None or step._is_remote else step

    def current_run(self) -> Step | None:
        """The run of the current step (its root step); None if there is none."""
        step = self.current_step()
        return None if step is None else step._root()

    # --- runs over several processes ---

    def trace_headers(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers, with ``traceparent`` and ``tracestate`` of the current step.

        For a request to another process that continues this run. Unchanged outside of a step.
        """
        return self._with_context(headers, str.lower)

    def trace_environment(self, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment (default: this process's), with ``TRACEPARENT`` and ``TRACESTATE``."""
        return self._with_context(os.environ if environment is None else environment, str.upper)

    def trace_kafka_headers(
        self, headers: Iterable[tuple[str, bytes]] | Mapping[str, bytes] | None = ()
    ) -> list[tuple[str, bytes]]:
        """The headers of a Kafka record, with those of the current step.

        Unchanged outside of a step. The Kafka client reports a record without headers as None.
        """
        try:
            given = list(headers.items() if isinstance(headers, Mapping) else headers or ())
            step = self.current_step()
            if step is None:
                return given
            kept, added = with_parent(step, given)
            return [*kept, *((name, value.encode("latin-1", "replace")) for name, value in added)]
        except Exception as error:
            internal_error("trace_kafka_headers", error)
            return headers  # type: ignore[return-value]

    def _with_context(
        self, given: Mapping[str, str] | None, cased: Callable[[str], str]
    ) -> dict[str, str]:
        try:
            found = dict(given or {})
            step = self.current_step()
            if step is None:
                return found
            kept, added = with_parent(step, found.items())
            return {**dict(kept), **{cased(name): value for name, value in added}}
        except Exception as error:
            internal_error("trace_headers", error)
            return given  # type: ignore[return-value]

    def continue_run(self, context: object) -> ContinuedRun:
        """A block (``with``, ``async with``) whose runs and steps belong to a run elsewhere.

        ``context`` has the ``traceparent`` of that run: headers of a request or of a Kafka record,
        or ``os.environ``. Without one, or with an invalid one, runs in the block are their own.
        """
        try:
            found = None if suppressed.get() else context_from(context)
            engine = None if found is None else self.engine()
            if found is not None and engine is not None:
                return ContinuedRun(RemoteStep(self, engine, found))
        except Exception as error:
            internal_error("continue_run", error)
        return ContinuedRun(None)

    @property
    def counts(self) -> Counts:
        """The events of this tracer so far, by their outcome."""
        with self._lock:
            counts = self._before
            for sender in self._replaced:
                counts += sender.counts
            engine = self._engine
            return counts if engine is None else counts + engine.sender.counts

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until every event so far is acknowledged. False after ``timeout`` seconds.

        A program does not need it at its end, which waits by itself.
        """
        self._publish_sources()
        engine = self._engine
        return engine is None or engine.sender.flush(timeout)

    def close(self, timeout: float = EXIT_WAIT_S) -> bool:
        """Flush and close the connection. Returns False if the flush timed out.

        Events that are not acknowledged by then are counted as failed. A later step connects
        again.
        """
        self._publish_sources()
        engine = self._engine
        if engine is None:
            return True
        engine.stop_listening()
        return engine.sender.close(timeout)

    def release(
        self,
        agent: str,
        name: str = "production",
        *,
        follow: bool = False,
        file: str | os.PathLike[str] | None = None,
        wait_s: float = 5.0,
    ) -> AgentRelease:
        """The release that a label (or a version) of the agent names.

        Waits up to ``wait_s`` for the endpoint, then takes what is in the cache on disk, then
        ``file``, a release that ``stepstream build -o`` wrote. With ``follow`` it changes when the
        label does. Runs of the agent carry its version and its hash from now on. A second call
        with the same arguments returns the same release. Raises ``ReleaseUnavailable``.
        """
        # Not at the top: most programs never call it, and it would slow `import stepstream`.
        from stepstream.producers.releases.loading import loader_of

        with self._lock:
            settings = self.resolved_settings()
            loader = loader_of(settings, agent, name, follow=follow, file=file)
            known = self._releases.get(agent)
            if known is not None and known.same_as(loader):
                return known.handle
        loader.load(wait_s)
        with self._lock:
            self._releases[agent] = loader
        return loader.handle

    def guardrails(self) -> GuardrailStatus:
        """The guardrails of policies that are in force here, and what they did so far."""
        from stepstream.producers.guardrails.in_force import GuardrailStatus

        engine = self._engine
        return GuardrailStatus() if engine is None else engine.guardrails.status()

    # --- inside ---

    def resolved_settings(self) -> Settings:
        """The settings in force. Raises ``ValueError``."""
        settings = self._settings() if callable(self._settings) else self._settings
        # Settings that were built in code have an endpoint that no loader has split yet.
        if settings.endpoint.startswith("kafka://") and not settings.kafka_brokers:
            brokers = settings.endpoint.removeprefix("kafka://").strip("/")
            settings = settings.model_copy(update={"kafka_brokers": brokers})
        return settings

    def engine(self) -> Engine | None:
        """The engine that records; None if recording is off. Never raises."""
        engine = self._engine
        if engine is not None or self._off:
            return engine
        with self._lock:
            if self._engine is None and not self._off:
                made = None
                try:
                    made = self._new_engine()
                except Exception as error:
                    internal_error("Tracer.engine", error)
                # The lock is re-entrant: a signal handler in this thread may have created one.
                if self._engine is None:
                    self._engine = made
                self._off = self._engine is None
            return self._engine

    def _new_engine(self) -> Engine | None:
        try:
            settings = self.resolved_settings()
        except ValueError as error:
            _print_line(f"stepstream: nothing is recorded: {error}")
            return None
        if not settings.enabled:
            return None
        has_endpoint = bool(settings.kafka_brokers) or is_http(settings.endpoint)
        if self._transport is None and not has_endpoint:
            _print_line(NO_ENDPOINT)
            return None
        if not self._at_exit_registered:
            self._at_exit_registered = True
            atexit.register(self._at_exit)
        if settings.thread_context:
            keep_steps_in_threads()
        made = Engine(
            settings,
            self._clock,
            self._totals,
            transport=self._transport,
            redact=self._redact,
            prices=self._prices,
            on_connect=keep_steps_in_pools if settings.thread_context else None,
            on_run=self._watch_sigterm if settings.handle_sigterm else None,
        )
        made.releases = self._releases
        return made

    def _watch_sigterm(self) -> bool:
        return end_runs_on_sigterm(self._at_sigterm)

    def _at_sigterm(self, is_end: bool) -> None:
        """End the open steps of the main thread and all open runs as cancelled, and send them.

        ``is_end``: the process ends by the signal, without ``atexit``.
        """
        engine = self._engine
        if engine is None:
            return
        error = Terminated("the process received SIGTERM")
        step = current.get()
        while step is not None:
            outer = step._outer
            if step._tracer is self and step._state == OPEN:
                step.end(error)
            step = outer
        for run in engine.open_runs():
            run.end(error)
        if is_end:
            self._at_exit(FLUSH_S)
        else:
            self.flush(FLUSH_S)

    def _at_exit(self, wait_s: float = EXIT_WAIT_S) -> None:
        try:
            self._publish_sources()
            engine = self._engine
            if engine is None:
                return
            engine.stop_listening(at_exit=True)
            engine.sender.close(wait_s if engine.sender.counts.delivered else wait_s / 2)
            line = exit_line(self._totals, self.counts, engine.settings.console_url)
            if line and not engine.settings.quiet:
                _print_line(line)
        except (Exception, KeyboardInterrupt) as error:
            internal_error("exit", error)

    def _opening(self, kind: str, name: str, fields: StepFields) -> Step:
        return Step(self, None, kind, name, fields)

    def _opening_run(self, name: str, fields: RunFields) -> Run:
        return Run(self, None, "agent", name, fields)


_public: list[Tracer] = []


def make_public(tracer: Tracer) -> Tracer:
    """Make a tracer the one that ``public_tracer`` returns. For the module ``stepstream``."""
    _public[:] = [tracer]
    return tracer


def public_tracer() -> Tracer:
    """The tracer of the functions of the module ``stepstream``, which must have been imported."""
    return _public[0]


def _print_line(line: str) -> None:
    """Print a line on stderr, if the program has one."""
    if sys.stderr is not None:
        try:
            print(printable(line), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return
