"""The producer of a benchmark, in a process of its own: makes a load, then sends it as fast as it
can or at a given rate."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from benchmarks.child import Answer, Child, Handler, serve
from benchmarks.load import Load, LoadSpec, Truth, make_load
from stepstream.common.kafka import producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS

BEAT_S: Final = 0.002
LOAD_TIMEOUT_S: Final = 900.0
# Runs so long that none ends, and enough records to be several batches of each partition.
TRICKLE: Final = LoadSpec(
    events=2_400, open_runs=32, fewest_steps=300, median_steps=300, most_steps=300, seed=7
)
TRICKLE_S: Final = 4.0


class Sender:
    """The parent's side."""

    def __init__(self, brokers: str) -> None:
        self._child = Child.module("benchmarks.sender")
        self._child.ask(do="connect", brokers=brokers)
        self.truth = Truth()
        self.source = ""

    @property
    def pid(self) -> int:
        return self._child.pid

    def load(self, spec: LoadSpec) -> Truth:
        """Make a load; it replaces the one before. Its times begin about when it will be ready."""
        answer = self._child.ask(LOAD_TIMEOUT_S, do="load", spec=asdict(spec))
        self.truth, self.source = Truth(**answer["truth"]), answer["source"]
        return self.truth

    def start(
        self, topic: str, *, rate: float = 0, first: int = 0, count: int = 0, sample_every: int = 0
    ) -> None:
        """Begin to send ``count`` records (0: all that are left) from number ``first`` on, ``rate``
        a second (0: at once).

        Of every ``sample_every``-th record that ends a step, the moment of sending and the offset
        are kept.
        """
        self._child.send(
            do="send", topic=topic, rate=rate, first=first, count=count, sample_every=sample_every
        )

    def finish(self, timeout_s: float = 900) -> Answer:
        """Wait until all are acknowledged: ``sent``, ``unsent``, ``began_s``, ``ended_s``,
        ``late_s``, ``samples``, ``marks``.

        Times are on ``time.monotonic``'s clock. ``samples`` holds (moment, partition, offset);
        ``late_s`` is how far behind the wanted rate it was at worst.
        """
        return self._child.wait(timeout_s)

    def send(self, topic: str, **how: Any) -> Answer:
        """``start`` and ``finish``."""
        self.start(topic, **how)
        return self.finish()

    def trickle(self, topic: str) -> Truth:
        """Let the log's time pass: records now and then, over more than the worker waits before it
        closes a run.

        Returns what they are; none of their runs ends. The load stays as it is.
        """
        return Truth(**self._child.ask(do="trickle", topic=topic))

    def marks(self, prefix: str) -> dict[str, list[float]]:
        """For runs whose trace_id begins so: when each of their records was sent the last time, in
        order."""
        return dict(self._child.ask(do="marks", prefix=prefix)["marks"])

    def close(self) -> None:
        self._child.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sending:
    """The child's side."""

    def __init__(self) -> None:
        self._producer: Producer | None = None
        self._load = self._trickle = Load([], [], Truth(), "")
        self._samples: list[tuple[float, int, int]] = []
        self._moments: list[tuple[int, int, float]] = []

    def connect(self, brokers: str) -> Answer:
        settings = Settings(kafka_brokers=brokers)
        self._producer = producer(settings, **{"queue.buffering.max.messages": 200_000})
        return {"connected": True}

    def load(self, spec: dict[str, Any]) -> Answer:
        wanted = LoadSpec(**spec)
        self._load = make_load(wanted)
        # Made now: a pause of the log before it would put off the closing of runs.
        self._trickle = make_load(replace(TRICKLE, start_us=int(time.time() * 1e6)))
        return {"truth": asdict(self._load.truth), "source": self._load.source}

    def send(self, topic: str, rate: float, first: int, count: int, sample_every: int) -> Answer:
        last = first + count if count else len(self._load.keys)
        self._samples, self._moments = [], []
        began = time.monotonic()
        late = (
            self._paced(topic, rate, first, last, sample_every)
            if rate
            else self._at_once(topic, first, last, sample_every)
        )
        assert self._producer is not None
        left = self._producer.flush(120)
        return {
            "sent": last - first,
            "unsent": left,
            "began_s": began,
            "ended_s": time.monotonic(),
            "late_s": late,
            "samples": self._samples,
        }

    def _at_once(self, topic: str, first: int, last: int, sample_every: int) -> float:
        for start in range(first, last, 5_000):
            self._batch(topic, start, min(last, start + 5_000), sample_every)
        return 0.0

    def _paced(self, topic: str, rate: float, first: int, last: int, sample_every: int) -> float:
        began, done, late = time.monotonic(), first, 0.0
        while done < last:
            elapsed = time.monotonic() - began
            due = min(last, first + int(elapsed * rate) + 1)
            late = max(late, elapsed - (done - first) / rate)
            self._batch(topic, done, due, sample_every)
            done = due
            time.sleep(BEAT_S)
        return late

    def _batch(self, topic: str, start: int, end: int, sample_every: int) -> None:
        assert self._producer is not None
        keys, values, produce = self._load.keys, self._load.values, self._producer.produce
        headers: Any = list(RECORD_HEADERS)
        self._moments.append((start, end, time.monotonic()))
        for index in range(start, end):
            more: dict[str, Any] = {}
            if (
                sample_every
                and index % sample_every < 2
                and b'"phase":"start"' not in values[index][:200]
            ):
                more["on_delivery"] = self._report(time.monotonic())
            while True:
                try:
                    produce(topic, values[index], keys[index], headers=headers, **more)
                except BufferError:
                    self._producer.poll(0.02)
                    continue
                break
        self._producer.poll(0)

    def _report(self, sent_at: float) -> Any:
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                self._samples.append((sent_at, message.partition(), message.offset()))

        return delivered

    def trickle(self, topic: str) -> Answer:
        load, moments = self._load, self._moments
        self._load, truth = self._trickle, self._trickle.truth
        try:
            self.send(topic, truth.events / TRICKLE_S, 0, 0, 0)
        finally:
            self._load, self._moments = load, moments
        return asdict(truth)

    def marks(self, prefix: str) -> Answer:
        wanted = prefix.encode()
        marks: dict[str, list[float]] = {}
        for start, end, moment in self._moments:
            for key in self._load.keys[start:end]:
                if key.startswith(wanted):
                    marks.setdefault(key.decode(), []).append(moment)
        return {"marks": marks}


if __name__ == "__main__":
    sending = _Sending()
    handlers: dict[str, Handler] = {
        "connect": sending.connect,
        "load": sending.load,
        "send": sending.send,
    }
    serve({**handlers, "trickle": sending.trickle, "marks": sending.marks})
