"""The sender: bounded, in order, counted to the event, and never in the agent's way."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.background_sender import BackgroundSender, Counts
from stepstream.producers.transport.base import Done, Record, Transport
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step as StepRecord
from tests.support.processes import wait_until
from tests.support.sdk import logged, traced


def record(number: int = 0, phase: str = "end", **changes: Any) -> StepRecord:
    return StepRecord(
        trace_id=f"{number:032x}",
        step_id="1" * 16,
        kind="plan",
        name="x",
        start_time=1,
        phase=phase,
        **changes,
    )


def encode(record: StepRecord) -> Record:
    return Record(record.trace_id.encode(), record.phase.encode())


def sender(
    transport: Transport, max_events: int = 10_000, max_bytes: int = 67_108_864
) -> BackgroundSender:
    return BackgroundSender(encode, lambda: transport, max_events=max_events, max_bytes=max_bytes)


def numbers(transport: MemoryTransport) -> list[int]:
    return [int(record.key, 16) for record in transport.records]


def test_in_order_and_counted() -> None:
    """Records leave in the order they came; every one is counted as delivered once it is."""
    transport = MemoryTransport()
    made = sender(transport)
    assert made.counts == Counts()
    for number in range(2_000):
        assert made.enqueue(record(number))
    assert made.flush(10)
    assert numbers(transport) == list(range(2_000))
    assert made.counts == Counts(enqueued=2_000, delivered=2_000)
    assert made.close(5)


class Gathering(MemoryTransport):
    """Asks the sender to wait for further records for longer than a test may take."""

    gather_s = 3_600.0


@pytest.mark.parametrize("is_end", [False, True])
def test_the_wait_for_further_records_ends_when_they_are_wanted(is_end: bool) -> None:
    """The first record is sent at once, later ones together; a flush and the end do not wait."""
    transport = Gathering()
    made = sender(transport)
    assert made.enqueue(record(0))
    wait_until(lambda: numbers(transport) == [0], 10, "the first record")
    for number in (1, 2):
        assert made.enqueue(record(number))
    assert numbers(transport) == [0]
    assert made.close(20) if is_end else made.flush(20)
    assert numbers(transport) == [0, 1, 2]
    assert made.close(20)


def test_from_many_threads() -> None:
    """Records of several threads are all there, each thread's own in order, and the counts are
    exact.
    """
    transport = MemoryTransport()
    made = sender(transport, max_events=100_000)

    def produce(thread: int) -> None:
        for number in range(1_000):
            assert made.enqueue(record(thread * 1_000 + number))

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.flush(20)
    got = numbers(transport)
    assert sorted(got) == list(range(8_000))
    for thread_number in range(8):
        own = [number for number in got if number // 1_000 == thread_number]
        assert own == sorted(own)
    assert made.counts == Counts(enqueued=8_000, delivered=8_000)
    made.close(5)


def test_a_full_queue_drops_and_counts() -> None:
    """Beyond the bound records are dropped, counted and logged once; starts give way to ends."""
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, max_events=100)
    with logged() as words:
        taken = [made.enqueue(record(number, phase="start")) for number in range(200)]
        # A tenth of the queue is kept for ends: without them runs seem to go on.
        assert sum(taken) == 90
        assert [made.enqueue(record(number)) for number in range(20)] == [True] * 10 + [False] * 10
        assert made.counts == Counts(enqueued=100, dropped=120, pending=100)
        wait_until(
            lambda: any("dropped" in word.getMessage() for word in words),
            10,
            "the sender's thread to get there",
            every_s=0.002,
        )
        assert not made.close(0.01)
    assert made.counts == Counts(enqueued=100, failed=100, dropped=120)


def test_bytes_are_bounded_too() -> None:
    """A few huge records fill the queue as well as many small ones, and room comes back when they
    are gone.
    """
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, max_bytes=100_000)
    assert made.enqueue(record(1, input="x" * 60_000))
    assert not made.enqueue(record(2, output="x" * 60_000))
    assert not made.enqueue(record(2, attributes={"a": "x" * 60_000}))
    assert made.enqueue(record(3))
    transport.unreachable = False
    assert made.flush(10)
    assert made.enqueue(record(4, input="x" * 60_000))
    assert made.flush(10)
    assert made._pending_bytes == 0
    made.close(5)


def test_memory_of_the_encoder_counts() -> None:
    """The inputs of unfinished steps count towards the bytes of the limit."""
    elsewhere = [0]
    transport = MemoryTransport(unreachable=True)
    made = BackgroundSender(
        encode, lambda: transport, max_bytes=100_000, other_bytes=lambda: elsewhere[0]
    )
    assert made.enqueue(record(1, input="x" * 40_000))
    elsewhere[0] = 50_000
    assert not made.enqueue(record(2, input="x" * 40_000))
    elsewhere[0] = 0
    assert made.enqueue(record(3, input="x" * 40_000))
    made.close(0.01)


def test_unfinished_steps_are_inside_the_bound() -> None:
    """A thousand open steps with long inputs hold no more than ``queue_bytes``, and are all
    recorded when they end.
    """
    with traced(queue_bytes=4_000_000) as made, made.tracer.run() as run:
        steps = []
        engine = made.tracer.engine()
        assert engine is not None
        for number in range(1_000):
            steps.append(run.tool(f"t{number}", input=f"{number} " + "word " * 2_000).start())
            assert engine._encoder_bytes() + engine.sender._pending_bytes <= 4_000_000
            assert made.tracer.flush(10)
        assert 0 < engine._encoder_bytes() <= 1_000_000
        for step in steps:
            step.end()
            assert made.tracer.flush(10)
        assert made.tracer.counts.dropped == 0


def test_the_agent_is_not_kept_waiting() -> None:
    """With a transport that takes nothing, ``enqueue`` returns: it queues or drops the record."""
    # No place at all: every record waits in the queue.
    made = sender(MemoryTransport(room=0))
    for number in range(20_000):
        made.enqueue(record(number))
    assert made.counts.pending == 10_000
    assert not made.close(0)
    assert made.counts == Counts(enqueued=10_000, failed=10_000, dropped=10_000)


def test_a_burst_waits_for_the_encoder() -> None:
    """A program that records faster than one thread encodes loses nothing: it waits for room."""
    transport = MemoryTransport()

    def slowly(record: StepRecord) -> Record:
        time.sleep(0.0001)
        return encode(record)

    made = BackgroundSender(slowly, lambda: transport, max_events=100)
    for number in range(2_000):
        assert made.enqueue(record(number, phase="start" if number % 2 else "end"))
    assert made.flush(30)
    assert numbers(transport) == list(range(2_000))
    assert made.counts == Counts(enqueued=2_000, delivered=2_000)
    made.close(5)


def test_a_stuck_encoder_delays_the_program_once() -> None:
    """After a wait without result, events that do not fit are dropped at once."""
    go_on = threading.Event()

    def stuck(record: StepRecord) -> Record:
        go_on.wait()
        return encode(record)

    made = BackgroundSender(stuck, MemoryTransport, max_events=10)
    # More than one wait in a second would make this last for minutes.
    dropped = sum(not made.enqueue(record(number)) for number in range(5_000))
    assert dropped == 4_990
    go_on.set()
    assert made.flush(10)
    assert made.counts == Counts(enqueued=10, delivered=10, dropped=4_990)
    made.close(5)


def test_a_transport_without_room_is_waited_for() -> None:
    """What the transport cannot take yet is offered again, in order."""
    transport = MemoryTransport(room=1)
    made = sender(transport)
    for number in range(50):
        made.enqueue(record(number))
    assert made.flush(10)
    assert numbers(transport) == list(range(50))
    made.close(5)


def test_flush_returns_the_truth() -> None:
    """``flush`` is False while something sent before it is not acknowledged, and true again when it
    is.
    """
    transport = MemoryTransport(unreachable=True)
    made = sender(transport)
    made.enqueue(record())
    began = time.monotonic()
    assert not made.flush(0.2)
    assert time.monotonic() - began > 0.19
    transport.unreachable = False
    assert made.flush(10)
    assert made.counts.delivered == 1
    made.close(5)


def test_flush_does_not_wait_for_what_came_later() -> None:
    """A thread that never stops producing does not keep ``flush`` from returning."""
    transport = MemoryTransport()
    made = sender(transport)
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            made.enqueue(record())
            time.sleep(0.0002)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        wait_until(
            lambda: made.counts.enqueued > 0,
            10,
            "the sender's thread to get there",
            every_s=0.002,
        )
        assert made.flush(10)
    finally:
        stop.set()
        thread.join()
        made.close(5)


def test_failures_are_counted_and_logged() -> None:
    """A record that the transport gives up is counted as failed, and the reason is logged once."""
    made = sender(MemoryTransport(failure="no such topic"))
    with logged() as words:
        for number in range(100):
            made.enqueue(record(number))
        assert made.flush(10)
    assert made.counts == Counts(enqueued=100, failed=100)
    assert [word.getMessage() for word in words] == [
        "stepstream: an event could not be delivered: no such topic"
    ]
    made.close(5)


class Raising:
    """A transport that breaks in every method."""

    def send(self, record: Record, done: Done) -> bool:
        raise RuntimeError("send broke")

    def poll(self, timeout_s: float) -> None:
        raise RuntimeError("poll broke")

    def close(self) -> None:
        raise RuntimeError("close broke")

    def abandon(self) -> None: ...


def test_a_transport_that_raises_loses_only_its_records() -> None:
    """Exceptions of a transport are counted failures and log lines, and the sender goes on."""
    made = sender(Raising())
    with logged():
        made.enqueue(record())
        assert made.flush(10)
        assert made.counts == Counts(enqueued=1, failed=1)
        made.enqueue(record())
        assert made.flush(10)
        made.close(5)
    assert made.counts == Counts(enqueued=2, failed=2)


def test_a_connection_that_cannot_be_made() -> None:
    """Where connecting fails, the reason is logged once and every record is counted as failed."""

    def connect() -> Transport:
        raise ValueError("no such CA file")

    made = BackgroundSender(encode, connect)
    with logged() as words:
        made.enqueue(record())
        assert made.flush(10)
        made.close(5)
    assert made.counts == Counts(enqueued=1, failed=1)
    assert any("no such CA file" in word.getMessage() for word in words)


def test_one_record_that_cannot_be_encoded() -> None:
    """It is counted as failed; those around it arrive."""
    transport = MemoryTransport()

    def picky(record: StepRecord) -> Record:
        if record.name == "bad":
            raise ValueError("bad")
        return encode(record)

    made = BackgroundSender(picky, lambda: transport)
    with logged():
        for name in ("good", "bad", "good"):
            made.enqueue(
                StepRecord(
                    trace_id="1" * 32, step_id="1" * 16, kind="plan", name=name, start_time=1
                )
            )
        assert made.flush(10)
    assert made.counts == Counts(enqueued=3, delivered=2, failed=1)
    made.close(5)


def test_closing_and_going_on() -> None:
    """``close`` lets go of the transport; a record afterwards opens it again; nothing is lost in
    between.
    """
    transport = MemoryTransport()
    made = sender(transport)
    for number in range(3):
        made.enqueue(record(number))
        assert made.close(5)
        assert transport.closed == number + 1
    assert made.close(5)
    assert numbers(transport) == [0, 1, 2]
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name == "stepstream-sender" and thread is made._thread
    ]


def test_closing_while_others_produce() -> None:
    """Records that come in while the sender closes are delivered by this thread or by the next,
    never given up.
    """
    transport = MemoryTransport()
    made = sender(transport, max_events=1_000_000)
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            assert made.enqueue(record())
            time.sleep(0.00005)

    thread = threading.Thread(target=produce)
    thread.start()
    for _ in range(20):
        assert made.close(10)
    stop.set()
    thread.join()
    assert made.close(10)
    assert made.counts == Counts(enqueued=len(transport.records), delivered=len(transport.records))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["record", "start", "flush", "close", "hold", "release"]), max_size=30
    ),
    st.integers(1, 20),
)
def test_counts_always_add_up(actions: list[str], room: int) -> None:
    """In any order of events:

    enqueued = delivered + failed + pending, and everything offered is enqueued or dropped.
    """
    transport = MemoryTransport(room=room)
    made = sender(transport, max_events=8)
    offered = 0
    with logged():
        for action in actions:
            if action in ("record", "start"):
                offered += 1
                made.enqueue(record(phase="end" if action == "record" else "start"))
            elif action == "flush":
                made.flush(0.01)
            elif action == "close":
                made.close(0.01)
            else:
                transport.unreachable = action == "hold"
            counts = made.counts
            assert counts.enqueued == counts.delivered + counts.failed + counts.pending
            assert counts.enqueued + counts.dropped == offered
        transport.unreachable = False
        assert made.close(10)
    assert made.counts.pending == 0
    assert made.counts.delivered == len(transport.records)


def test_a_step_that_ends_in_a_garbage_collection_inside_the_publisher() -> None:
    """Ending a step while the sender's own lock is owned by the same thread, as a destructor may,
    does not block.
    """
    with traced() as made:
        run = made.tracer.run().__enter__()
        sender = made.tracer.engine().sender  # type: ignore[union-attr]

        class Dropped:
            def __del__(self) -> None:
                with made.tracer.tool("in destructor"):
                    pass

        circle: list[Any] = [Dropped()]
        circle.append(circle)
        del circle
        with sender._lock:
            gc.collect()
        run.__exit__(None, None, None)
        assert made.parents()["in destructor"] == "support"


def test_a_step_that_ends_in_a_signal_handler() -> None:
    """A signal that arrives while a record is handed over may itself end steps."""
    handled: list[int] = []
    with traced(queue_events=1_000_000) as made:

        def handler(_signal: int, _frame: object) -> None:
            handled.append(1)
            with made.tracer.tool("in handler"):
                pass

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(3_000):
                with made.tracer.tool("find"):
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert made.tracer.flush(10)
        counts = made.tracer.counts
        names = [event.name for event in made.transport.ended]
    assert handled
    assert (names.count("find"), names.count("in handler")) == (3_000, len(handled))
    assert counts == Counts(enqueued=2 * len(names), delivered=2 * len(names))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork() -> None:
    """The child sends its own steps, of the run in which it was forked, and none of the parent's;
    the parent goes on undisturbed.
    """
    reading, writing = os.pipe()
    transport = MemoryTransport(unreachable=True)
    tracer = Tracer(Settings(quiet=True), transport=transport)
    run = tracer.run("run")
    with run:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reading)
                # The child begins with counts of its own: the parent's records are the parent's to
                # send.
                assert tracer.counts == Counts()
                transport.unreachable = False
                with tracer.tool("in child") as step:
                    assert step.trace_id == run.trace_id
                run.__exit__(None, None, None)
                assert tracer.flush(10)
                events = transport.events
                assert {event.name for event in events} == {"in child"}, events
                assert events[0].parent_step_id == run.step_id
                assert tracer.counts == Counts(enqueued=2, delivered=2)
                code = 0
            except BaseException:
                os.write(writing, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as reported_by_child:
            words = reported_by_child.read()
        assert os.waitpid(child, 0)[1] == 0, words
        transport.unreachable = False
    assert tracer.close(10)
    assert sorted(event.name for event in transport.events) == ["run", "run"]
