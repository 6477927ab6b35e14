"""The thread between OpenTelemetry's spans and the SDK's sender: maps spans to steps.

The program's threads only append to a queue here. A start is published ``START_DELAY_S`` late, with
the attributes that the span has by then; a span that has ended by then has its end event only,
which is the complete record of a step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from stepstream.producers.engine import Engine
from stepstream.producers.forks import call_after_fork
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import BARE, Options
from stepstream.producers.otel.spans import SpanReader
from stepstream.producers.sdk_log import internal_error, sdk_log, suppressed
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.room import RoomWait
from stepstream.schemas.step import AnyStep

# Instrumentations set most attributes right after the start of a span, and most tool calls end
# within this time: a later start has more in it, and short spans cost one event instead of two.
START_DELAY_S: Final = 0.1
POLL_S: Final = 0.02
JOIN_S: Final = 1.0
# Queues shorter than this are not measured in bytes: the thread empties them every POLL_S.
_UNMEASURED: Final = 64
# A call that waits for room ends its wait when so much of the queue is used.
_AMPLE_TENTHS: Final = 8
_SPAN_BYTES: Final = 1_000


class SpanPublisher:
    """Publishes the starts and ends of spans through a tracer.

    Bounded like the SDK's queue: by the settings ``queue_events`` and ``queue_bytes``. A span that
    does not fit waits for the thread, for a bounded time (``transport.room``). What does not fit
    then is dropped, counted in ``dropped`` and logged; starts are dropped before ends.
    """

    def __init__(
        self, tracer: Tracer, *, other_spans: str = BARE, start_delay_s: float = START_DELAY_S
    ) -> None:
        self.dropped = 0
        """Starts and ends that did not fit in the queue."""
        self.refused = 0
        """Ended spans that no step can be made of: their times cannot be used."""
        self._tracer = tracer
        self._other_spans = other_spans
        self._start_delay_s = start_delay_s
        self._clear()
        tracer._add_source(self.publish_ended)
        call_after_fork(self)

    def _clear(self) -> None:
        self._lock = threading.RLock()
        # Only one thread at a time maps: the publisher's, or one that flushes.
        self._mapping = threading.RLock()
        self._starts: deque[tuple[float, ReadableSpan]] = deque()
        self._ends: deque[tuple[ReadableSpan, int]] = deque()
        self._bytes = 0
        self._room = RoomWait()
        self._dropped_logged = 0
        self._thread: threading.Thread | None = None
        self._work_waits = threading.Event()
        self._is_idle = False
        self._engine: Engine | None = None
        self._mapper: Mapper | None = None
        self._reader = SpanReader()

    def after_fork(self) -> None:
        """Start empty in the child: the parent publishes the spans that it began."""
        self._clear()

    # --- called by the program's threads ---

    def started(self, span: ReadableSpan, engine: Engine) -> None:
        """Queue the start of a span."""
        if len(self._starts) * 10 >= engine.settings.queue_events * 9 and not self._forget_ended():
            self.dropped += 1
            return
        self._starts.append((time.monotonic() + self._start_delay_s, span))
        self._notify()

    def ended(self, span: ReadableSpan, engine: Engine) -> None:
        """Queue an ended span."""
        size = 0 if len(self._ends) < _UNMEASURED else _size(span)
        if not self._has_room(size, engine) and not self._wait_for_room(size, engine):
            self.dropped += 1
            return
        if size:
            with self._lock:
                self._bytes += size
        self._ends.append((span, size))
        self._notify()

    def _forget_ended(self) -> bool:
        """Remove the oldest start if its span has ended, because its end event is enough."""
        with self._lock:
            if not self._starts or self._starts[0][1].end_time is None:
                return False
            self._starts.popleft()
        return True

    def _has_room(self, size: int, engine: Engine, tenths: int = 10) -> bool:
        settings = engine.settings
        return (
            len(self._ends) * 10 < settings.queue_events * tenths
            and (self._bytes + size) * 10 <= settings.queue_bytes * tenths
        )

    def _wait_for_room(self, size: int, engine: Engine) -> bool:
        self._room.wait(
            lambda: self._has_room(size, engine),
            lambda: self._has_room(size, engine, _AMPLE_TENTHS),
            self._is_behind,
        )
        return self._has_room(size, engine)

    def _is_behind(self) -> bool:
        """True if the thread has spans to publish, and the caller is another thread."""
        return bool(self._ends) and threading.current_thread() is not self._thread

    def publish_ended(self) -> None:
        """Publish every span that has ended so far, in the calling thread."""
        with self._mapping:
            while self._ends:
                self._publish_end()

    def publish_all(self) -> None:
        """Publish what is queued, also starts that are not due yet."""
        self.publish_ended()
        self._publish_starts(until=float("inf"))

    def _notify(self) -> None:
        # The thread polls while there is something to do, because waking it costs more than the
        # rest of a span: 5 us and, with one interpreter lock, a switch of threads.
        if self._thread is None:
            self._start()
        elif self._is_idle:
            self._work_waits.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._work, name="stepstream-spans", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter shuts down: the last flush publishes
                return

    # --- in the publisher's thread ---

    def _work(self) -> None:
        suppressed.set(True)
        while True:
            try:
                self.publish_ended()
                self._publish_starts(until=time.monotonic())
                self._log_dropped()
            except Exception as error:
                internal_error("SpanProcessor", error)
            self._wait()

    def _wait(self) -> None:
        if self._starts or self._ends:
            time.sleep(POLL_S)
            return
        self._work_waits.clear()
        self._is_idle = True
        # Again, because a span may have been queued before the program saw that this is idle.
        if not self._starts and not self._ends:
            self._work_waits.wait()
        self._is_idle = False

    def _publish_end(self) -> None:
        try:
            span, size = self._ends.popleft()
        except IndexError:
            return
        if size:
            with self._lock:
                self._bytes -= size
        engine = self._tracer.engine()
        if engine is None:
            return
        found = self._mapper_of(engine).steps(self._reader.read(span), _origin(engine))
        if isinstance(found, Refused):
            self.refused += 1
            sdk_log.log("span", f"stepstream: span {span.name!r} is not recorded: {found.detail}")
            return
        for step in found:
            self._publish(step, engine)

    def _publish_starts(self, until: float) -> None:
        with self._mapping:
            while (span := self._due_start(until)) is not None:
                if span.end_time is None:
                    self._publish_start(span)

    def _due_start(self, until: float) -> ReadableSpan | None:
        with self._lock:
            is_due = self._starts and self._starts[0][0] <= until
            return self._starts.popleft()[1] if is_due else None

    def _publish_start(self, span: ReadableSpan) -> None:
        engine = self._tracer.engine()
        if engine is None:
            return
        found = self._mapper_of(engine).start(self._reader.read(span), _origin(engine))
        # What is refused now is refused and logged again at its end.
        if found is not None and not isinstance(found, Refused):
            self._publish(found, engine)

    def _publish(self, step: AnyStep, engine: Engine) -> None:
        if not step.agent and not step.parent_step_id:
            step.agent = engine.labels["agent"]
        step.agent_version = step.agent_version or engine.labels["agent_version"]
        engine.publish(step)

    def _mapper_of(self, engine: Engine) -> Mapper:
        if self._mapper is None or self._engine is not engine:
            settings = engine.settings
            self._engine = engine
            self._mapper = Mapper(
                Options(
                    max_content_bytes=settings.max_content_bytes,
                    content_bytes_by_kind=settings.content_bytes_by_kind,
                    capture=settings.content_capture,
                    other_spans=self._other_spans,
                    environment=settings.environment,
                    # The SDK's encoder does it, with the program's own hook.
                    redact=False,
                )
            )
        return self._mapper

    def _log_dropped(self) -> None:
        fresh = self.dropped - self._dropped_logged
        if fresh and sdk_log.log(
            "spans dropped", f"stepstream: {fresh} spans dropped, the queue is full"
        ):
            self._dropped_logged = self.dropped


def _origin(engine: Engine) -> Origin:
    return Origin(engine.labels["project"], engine.clock.now_us())


def _size(span: ReadableSpan) -> int:
    """About the memory of a span, by its texts."""
    return _SPAN_BYTES + sum(
        len(value) for value in (span.attributes or {}).values() if type(value) is str
    )
