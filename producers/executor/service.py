"""The executor: takes attempts from the scheduler, runs them, reports how they end.

Threads: the main one has the signals and the clock (time-outs, readiness, loss of the lease); one
receives bindings, one acknowledgements, two belong to the heartbeat process; attempts run in
threads, on the event loop, or in processes of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stepstream.common.kafka import KafkaUnreachable
from stepstream.producers.executor.attempts import Attempt, Attempts, Refused, State
from stepstream.producers.executor.beats import Heartbeat, Snapshot
from stepstream.producers.executor.bindings import Bindings, TopicsMissing
from stepstream.producers.executor.bodies import Body, Loop, LoopBody, ProcessBody, ThreadBody
from stepstream.producers.executor.children import Children
from stepstream.producers.executor.declared import Program, duration_us
from stepstream.producers.executor.execution import Execution
from stepstream.producers.executor.outcome import Outcome, Stop
from stepstream.producers.executor.readiness import Readiness
from stepstream.producers.executor.steady import steady_s
from stepstream.producers.executor.task import AttemptStopped
from stepstream.producers.executor.threads import Threads
from stepstream.producers.tasks.sender import Delivery, Sender
from stepstream.schemas.task_bindings import (
    DrainExecutorStruct,
    NewEpochStruct,
    ReleaseAttemptStruct,
    RunAttemptStruct,
)
from stepstream.schemas.task_common import MAX_SLOTS
from stepstream.schemas.task_messages import (
    ByeStruct,
    ClaimStruct,
    DrainStruct,
    EndStruct,
    ExtendStruct,
    HelloStruct,
    NotReadyStruct,
    OnceStruct,
    ReadyStruct,
)

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_bindings import Binding, DrainExecutor, RunAttempt
    from stepstream.schemas.task_messages import EndStatus

TICK_S: Final = 0.1
HELLO_S: Final = 15.0
RETRY_S: Final = 2.0
START_S: Final = 60.0
"""The longest wait for the heartbeat process to start; it is long on a busy machine."""
END_S: Final = 5.0
"""How long the end of the process is delayed for ends and steps that are not acknowledged."""
RELEASES: Final[dict[str, EndStatus]] = {"timeout": "timed_out"}
"""How an attempt ends that the scheduler takes back, by the reason of the release."""
_log: Final = logging.getLogger("stepstream.executor")


class CannotRun(Exception):
    """The executor cannot start: the message has the reason."""


class Registration:
    """The executor as the scheduler knows it, from ``hello`` until its lease is lost or it ends."""

    def __init__(self, executor_id: str, bindings: Bindings, heartbeat: Heartbeat) -> None:
        self.executor_id = executor_id
        self.bindings = bindings
        self.heartbeat = heartbeat
        self.reported = ""

    def close(self) -> None:
        self.bindings.close()
        self.heartbeat.close()


class Service:
    """One executor process."""

    def __init__(
        self, app: Program, settings: Settings, *, slots: int, drain_s: float, target: str
    ) -> None:
        self._app = app
        self._settings = settings
        self._slots = slots
        self._drain_s = drain_s
        self._project = app.project or settings.project or "default"
        self._lease_s = min(agent.spec.lease_us for agent in app.agents) / 1e6
        self._threads = Threads()
        self._children = Children(target, self._threads)
        self._loop: Loop | None = None
        self._guard = threading.RLock()
        self._attempts = Attempts(slots)
        self._wake = threading.Event()
        self._lost = threading.Event()
        self._signals = 0
        self._end_at_s: float | None = None
        self._registration: Registration | None = None
        self._readiness = Readiness(app.checks, self._threads)
        self._sender = Sender(settings, self._lease_s)

    # --- the main thread ---

    def run(self) -> int:
        """Run until SIGTERM or a drain; returns the exit code. Raises ``TopicsMissing``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if any(agent.isolation == "process" for agent in self._app.agents):
            self._threads.run(self._children.warm_up)
        try:
            while not self._is_over():
                if self._register():
                    self._serve()
                    self._leave()
        finally:
            self._close()
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        # Only noted: the interrupted code may have a lock that anything else would need.
        self._signals += 1
        self._wake.set()

    def _is_over(self) -> bool:
        """Whether the executor is draining and has nothing left to do."""
        if self._signals and not self._attempts.draining:
            self._drain(self._drain_s, by="a signal")
        if not self._attempts.draining:
            return False
        if self._signals > 1:
            self._end_at_s = steady_s()
        return not self._attempts or self._gives_up()

    def _gives_up(self) -> bool:
        """At the end of a drain: stop what still runs; True once it had its time to stop."""
        now_s = steady_s()
        if self._end_at_s is None or now_s < self._end_at_s:
            return False
        stop = Stop("lease_lost", "the executor was drained and ends")
        for attempt in self._attempts:
            self._stop(attempt, stop)
        longest_s = max((one.agent.grace_s for one in self._attempts), default=0.0)
        return now_s >= self._end_at_s + longest_s + END_S

    def _register(self) -> bool:
        """Offer the slots to the scheduler. False where Kafka does not answer."""
        executor_id = f"{socket.gethostname()[:200]}-{os.getpid()}-{os.urandom(4).hex()}"
        self._lost.clear()
        try:
            bindings = Bindings(self._settings, executor_id, self._take)
        except KafkaUnreachable as error:
            _log.warning("%s: trying again", error)
            self._wake.wait(RETRY_S)
            return False
        heartbeat = Heartbeat(
            self._settings,
            project=self._project,
            executor_id=executor_id,
            lease_s=self._lease_s,
            snapshot=self._snapshot,
            on_lost=self._on_lost,
        )
        found = Registration(executor_id, bindings, heartbeat)
        if not heartbeat.wait_ready(START_S) or not self._introduce(found):
            found.close()
            _log.warning("Kafka has not acknowledged the executor's start: trying again")
            self._wake.wait(RETRY_S)
            return False
        return True

    def _introduce(self, registration: Registration) -> bool:
        # Set before hello: the first binding may arrive before its acknowledgement.
        self._registration = registration
        registration.bindings.start()
        reason = self._first_reason()
        registration.reported = reason
        sent_s = steady_s()
        hello = HelloStruct(
            project=self._project,
            executor_id=registration.executor_id,
            agents=[agent.spec for agent in self._app.agents],
            slots=self._slots,
            host=socket.gethostname()[:200],
            pid=os.getpid(),
            ready=not reason,
        )
        registration.heartbeat.begin(sent_s)
        if self._sender.send_and_wait(hello, HELLO_S).error:
            self._registration = None
            return False
        _log.info(
            "executor %s: project %s, %d slots, agents %s%s",
            registration.executor_id,
            self._project,
            self._slots,
            ", ".join(agent.label for agent in self._app.agents),
            f"; not ready: {reason}" if reason else "",
        )
        return True

    def _first_reason(self) -> str:
        """Why it is not ready at its start; waits for the first round of checks."""
        deadline_s = steady_s() + RETRY_S
        while (reason := self._readiness.reason(steady_s())) and steady_s() < deadline_s:
            self._wake.wait(TICK_S)
            if self._signals:
                break
        return reason

    def _serve(self) -> None:
        """Until the executor is over, or its lease is lost and its attempts have stopped."""
        while not self._is_over() and not (self._lost.is_set() and not self._attempts):
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._check(steady_s())

    def _check(self, now_s: float) -> None:
        registration = self._registration
        if registration is not None and not registration.heartbeat.is_lost():
            self._report_readiness(registration, now_s)
        with self._guard:
            late, overdue = self._attempts.timed_out(now_s), self._attempts.overdue(now_s)
        for attempt in late:
            limit_s = (attempt.binding.timeout_us or attempt.agent.spec.timeout_us) / 1e6
            self._stop(attempt, Stop("timed_out", f"it took longer than {limit_s:g} s"))
        for attempt in overdue:
            self._kill(attempt)
        if self._loop is not None:
            self._loop.check(now_s)

    def _report_readiness(self, registration: Registration, now_s: float) -> None:
        reason = self._readiness.reason(now_s)
        if bool(reason) == bool(registration.reported) or self._attempts.draining:
            return
        registration.reported = reason
        project, executor_id = self._project, registration.executor_id
        if reason:
            _log.warning("not ready: %s", reason)
            self._sender.send(
                NotReadyStruct(project=project, executor_id=executor_id, reason=reason)
            )
        else:
            _log.info("ready again")
            self._sender.send(ReadyStruct(project=project, executor_id=executor_id))

    def _kill(self, attempt: Attempt) -> None:
        if attempt.body is None or attempt.body.kill():
            return
        _log.warning(
            "%s does not stop, and keeps its slot: it makes no step and awaits nothing; "
            "isolation='process' lets the executor end it",
            attempt,
        )

    def _leave(self) -> None:
        """End a registration. A lost one is followed by another one, with another id."""
        registration, self._registration = self._registration, None
        if registration is None:
            return
        was_lost = self._lost.is_set()
        registration.close()
        if not was_lost:
            bye = ByeStruct(project=self._project, executor_id=registration.executor_id)
            self._sender.send_and_wait(bye, END_S)

    def _close(self) -> None:
        self._leave()
        self._sender.close()
        self._children.close()
        if self._loop is not None:
            self._loop.close()
        self._app.tracer.close(END_S)

    # --- any thread ---

    def _on_lost(self) -> None:
        """The lease is lost: what runs is stopped, before the scheduler gives it to another one."""
        _log.warning(
            "no heartbeat was acknowledged for %.0f s: the executor stops its attempts",
            self._lease_s * 2 / 3,
        )
        self._lost.set()
        stop = Stop("lease_lost", "the executor could not renew its lease")
        for attempt in self._attempts:
            self._stop(attempt, stop)
            # No body of these runs, so there is nothing to wait for.
            if attempt.state is not State.RUNNING:
                self._forget(attempt)
        self._wake.set()

    def _snapshot(self) -> Snapshot:
        with self._guard:
            return Snapshot(self._attempts.keys, self._children.pids)

    def _drain(self, seconds: float, by: str) -> None:
        with self._guard:
            if self._attempts.draining:
                return
            self._attempts.draining = True
        self._end_at_s = steady_s() + seconds
        _log.info("draining, as %s asks: %d attempts are running", by, len(self._attempts))
        registration = self._registration
        if registration is not None:
            drain = DrainStruct(
                project=self._project,
                executor_id=registration.executor_id,
                deadline_us=round(seconds * 1e6),
                by=by,
            )
            self._sender.send(drain)
        self._wake.set()

    # --- the thread of the bindings ---

    def _take(self, binding: Binding) -> None:
        if isinstance(binding, RunAttemptStruct):
            self._offered(binding)
        elif isinstance(binding, ReleaseAttemptStruct):
            with self._guard:
                attempt = self._attempts.find(binding)
            if attempt is not None:
                status = RELEASES.get(binding.reason, "cancelled")
                self._stop(attempt, Stop(status, binding.reason or "it was released"))
        elif isinstance(binding, DrainExecutorStruct):
            self._asked_to_drain(binding)
        elif isinstance(binding, NewEpochStruct):
            with self._guard:
                self._attempts.new_epoch(binding.epoch)

    def _asked_to_drain(self, binding: DrainExecutor) -> None:
        with self._guard:
            is_new = not self._attempts.draining
            self._attempts.draining = True
        if is_new:
            # Without a deadline running attempts have as long as they need.
            if binding.deadline_us:
                self._end_at_s = steady_s() + binding.deadline_us / 1e6
            _log.info("draining, as %s asks", binding.by or "the scheduler")
            self._wake.set()

    def _offered(self, binding: RunAttempt) -> None:
        registration = self._registration
        # An attempt never begins after the lease: it may be another executor's by now.
        if registration is None or registration.heartbeat.is_lost():
            return
        agent = self._app.find(binding.agent, binding.version)
        with self._guard:
            found = self._attempts.offer(binding, agent)
        if isinstance(found, Refused):
            outcome = Outcome("refused", reason=found.reason, side_effect_free=True)
            self._sender.send(self._end_record(binding, outcome))
        elif found is not None:
            body = found.body = self._body(found)
            if isinstance(body, ProcessBody):
                # A new process takes longer to start than the thread of the bindings may wait.
                self._threads.run(lambda: self._prepare(found, body, registration))
            else:
                self._claim(found, registration)

    def _prepare(self, attempt: Attempt, body: ProcessBody, registration: Registration) -> None:
        try:
            body.prepare()
        except OSError as error:
            reason = f"no process can be started: {error}"
            _log.error("%s: %s", attempt, reason)
            self._done(attempt, Outcome("refused", reason=reason, side_effect_free=True))
            return
        self._claim(attempt, registration)

    def _claim(self, attempt: Attempt, registration: Registration) -> None:
        binding = attempt.binding
        claim = ClaimStruct(
            project=binding.project,
            executor_id=registration.executor_id,
            task_id=binding.task_id,
            attempt=binding.attempt,
            fence=binding.fence,
        )
        if attempt.agent.spec.idempotent:
            self._sender.send(claim)
            self._start(attempt)
            return

        def on_end(delivery: Delivery) -> None:
            # Unacknowledged, the scheduler would take a crash now for one before the start, and
            # give the attempt to another executor although it may have begun.
            if not delivery.error:
                self._start(attempt)
            elif self._lost.is_set():
                self._forget(attempt)
            else:
                self._claim(attempt, registration)

        self._sender.send(claim, on_end)

    def _body(self, attempt: Attempt) -> Body:
        def done(outcome: Outcome) -> None:
            self._done(attempt, outcome)

        agent, binding = attempt.agent, attempt.binding
        if agent.isolation == "process":
            return ProcessBody(self._children, binding, _ChildHost(self, binding), done)
        execution = Execution(agent, binding, self, self._app.tracer)
        if agent.is_async:
            if self._loop is None:
                self._loop = Loop()
            return LoopBody(self._loop, execution, done)
        return ThreadBody(self._threads, execution, done)

    # --- an attempt's way ---

    def _start(self, attempt: Attempt) -> None:
        assert attempt.body is not None
        with self._guard:
            if self._attempts.find(attempt.binding) is not attempt:
                attempt.body.forget()
                return  # it was forgotten when the lease was lost
            stop = attempt.stop
            if stop is None:
                self._attempts.started(attempt, steady_s())
        if stop is not None:
            # It was stopped before it began.
            attempt.body.forget()
            self._done(attempt, Outcome(stop.status, reason=stop.reason, side_effect_free=True))
            return
        registration = self._registration
        if registration is None or registration.heartbeat.is_lost():
            attempt.body.forget()
            self._forget(attempt)
            return
        attempt.body.start()

    def _stop(self, attempt: Attempt, stop: Stop) -> None:
        with self._guard:
            is_new = self._attempts.stop(attempt, stop, steady_s())
            runs = attempt.state is State.RUNNING
        if is_new:
            _log.info("%s is stopped: %s", attempt, stop.reason)
            if runs and attempt.body is not None:
                attempt.body.stop(stop)

    def _done(self, attempt: Attempt, outcome: Outcome) -> None:
        with self._guard:
            attempt.state = State.ENDING
        self._send_end(attempt, self._end_record(attempt.binding, outcome))

    def _send_end(self, attempt: Attempt, end: Any) -> None:
        def on_end(delivery: Delivery) -> None:
            if not delivery.error or self._lost.is_set():
                self._forget(attempt)
            else:
                self._send_end(attempt, end)

        self._sender.send(end, on_end)

    def _forget(self, attempt: Attempt) -> None:
        with self._guard:
            self._attempts.ended(attempt)
            is_last = not self._attempts
        if is_last:
            self._wake.set()

    def _end_record(self, binding: RunAttempt, outcome: Outcome) -> Any:
        result: dict[str, Any] = {}
        if outcome.result is not None:
            result["result"] = msgspec.Raw(outcome.result)
        return EndStruct(
            project=binding.project,
            executor_id=binding.executor_id,
            task_id=binding.task_id,
            attempt=binding.attempt,
            fence=binding.fence,
            status=outcome.status,
            error_type=outcome.error_type,
            error_message=outcome.error_message,
            reason=outcome.reason,
            side_effect_free=outcome.side_effect_free,
            **result,
        )

    # --- the host of tasks ---

    def keep(self, binding: RunAttempt, key: str, value: bytes) -> None:
        """Record a value of ``once``. Raises ``AttemptStopped``."""
        self._check_open(binding)
        record = OnceStruct(
            project=binding.project,
            executor_id=binding.executor_id,
            task_id=binding.task_id,
            attempt=binding.attempt,
            fence=binding.fence,
            key=key,
            value=msgspec.Raw(value),
        )
        while self._sender.send_and_wait(record, self._lease_s).error:
            self._check_open(binding)

    def extend(self, binding: RunAttempt, by_us: int) -> None:
        """Move the time-out of an attempt, here and at the scheduler."""
        self._check_open(binding)
        with self._guard:
            self._attempts.extend(binding, by_us)
        self._sender.send(
            ExtendStruct(
                project=binding.project,
                executor_id=binding.executor_id,
                task_id=binding.task_id,
                attempt=binding.attempt,
                fence=binding.fence,
                by_us=by_us,
            )
        )

    def _check_open(self, binding: RunAttempt) -> None:
        with self._guard:
            attempt = self._attempts.find(binding)
        if attempt is None or attempt.stop is not None:
            reason = "it has ended" if attempt is None or not attempt.stop else attempt.stop.reason
            raise AttemptStopped(f"attempt {binding.attempt} of {binding.task_id}: {reason}")


class _ChildHost:
    """The host of an attempt in a process of its own."""

    def __init__(self, service: Service, binding: RunAttempt) -> None:
        self._service = service
        self._binding = binding

    def keep(self, key: str, value: bytes) -> None:
        self._service.keep(self._binding, key, value)

    def extend(self, by_us: int) -> None:
        self._service.extend(self._binding, by_us)


def run(
    app: Program,
    *,
    slots: int,
    drain: str | float,
    target: str = "",
    settings: Settings | None = None,
) -> int:
    """Run an executor in this process until SIGTERM; returns the exit code.

    Raises ``CannotRun``, ``ValueError`` for a wrong argument, and ``TopicsMissing``.
    """
    chosen = app.tracer.resolved_settings() if settings is None else settings
    if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MAX_SLOTS:
        raise ValueError(f"slots={slots!r}: a whole number from 1 to {MAX_SLOTS:,}")
    if os.name != "posix":
        raise CannotRun("an executor needs Linux or macOS: it watches its processes by signals")
    if not app.agents:
        raise CannotRun("the executor has no agents: declare one with @app.agent(...)")
    if not chosen.kafka_brokers:
        raise CannotRun(
            "an executor needs Kafka: set STEPSTREAM_KAFKA_BROKERS=host:port (a gateway is not "
            "enough), or start `stepstream up`"
        )
    if not target and any(agent.isolation == "process" for agent in app.agents):
        raise CannotRun(
            "isolation='process' needs the name of the executor: start it with "
            "`stepstream executor module:app`, or app.run(target='module:app')"
        )
    if threading.current_thread() is not threading.main_thread():
        raise CannotRun("an executor runs in the main thread, which alone gets signals")
    drain_s = duration_us("drain", drain) / 1e6
    return Service(app, chosen, slots=slots, drain_s=drain_s, target=target).run()


__all__ = ["CannotRun", "TopicsMissing", "run"]
