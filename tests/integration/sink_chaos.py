"""``python -m tests.integration.sink_chaos [--seconds 240] [--seed 1]``: sinks, store and broker
fail at random.

Two sinks store what is sent over four partitions, some of it twice, while sinks are killed and
started again, frozen and woken, and store and broker are killed and started again. In the end every
step must be there once, in views and in rollups.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from tests.support.sink import (
    SinkProcess,
    Steps,
    assert_stored,
    create_topics,
    lag,
    send,
    small_batches,
    wait_stored,
)

SINKS = 2
LONGEST_FREEZE_S = 12.0


class Chaos:
    """One game: what happens is decided by the seed, when it happens by the machine."""

    def __init__(
        self, settings: Settings, kafka: EmbeddedKafka, store: EmbeddedClickHouse, seed: int
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._store = store
        self._random = random.Random(seed)
        self._done = threading.Event()
        self.steps = Steps(seed)
        self.counts: Counter[str] = Counter()
        self._sinks = [SinkProcess(settings) for _ in range(SINKS)]

    def play(self, seconds: float) -> None:
        """Cause failures for so long, then wait until all is stored and check it."""
        producer = threading.Thread(target=self._produce)
        producer.start()
        try:
            self._cause_failures(time.monotonic() + seconds)
        finally:
            self._done.set()
            producer.join()
        try:
            wait_stored(self._settings, self.steps.sent, 120)
            time.sleep(LONGEST_FREEZE_S + 1)  # the last frozen one wakes
            codes = [sink.stop() for sink in self._sinks]
            assert codes == [0] * SINKS, codes
            assert_stored(self._settings, self.steps.sent)
            assert lag(self._settings, partitions=4) == 0
        finally:
            for sink in self._sinks:
                sink.end()

    def _produce(self) -> None:
        chance = random.Random(self._random.random())
        before: list[tuple[str, bytes]] = []
        while not self._done.wait(0.05):
            records = [record for _ in range(20) for record in self.steps.run(5)]
            again = before if chance.random() < 0.3 else []
            self.counts["records sent again"] += len(again)
            send(self._settings, records + again)
            before = records[:100]

    def _cause_failures(self, until: float) -> None:
        while time.monotonic() < until:
            time.sleep(self._random.uniform(0.5, 4))
            actions = (self._kill_sink, self._kill_store, self._kill_broker, self._freeze)
            what = self._random.choices(actions, (45, 25, 8, 20))[0]
            what(self._random.randrange(SINKS))

    def _kill_sink(self, number: int) -> None:
        self._sinks[number].end()
        self._sinks[number] = SinkProcess(self._settings)
        self.counts["sinks killed"] += 1

    def _kill_store(self, _number: int) -> None:
        if self._store.pid is not None:
            os.kill(self._store.pid, signal.SIGKILL)
        self._store.stop()
        time.sleep(self._random.uniform(0, 2))
        self._store.start()
        self.counts["stores killed"] += 1

    def _kill_broker(self, _number: int) -> None:
        self._kafka.kill(0)
        time.sleep(self._random.uniform(0, 4))
        self._kafka.restart(0)
        self.counts["brokers killed"] += 1

    def _freeze(self, number: int) -> None:
        process = self._sinks[number].process
        process.send_signal(signal.SIGSTOP)

        def wake() -> None:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

        threading.Timer(self._random.uniform(1, LONGEST_FREEZE_S), wake).start()
        self.counts["sinks frozen"] += 1


def play(folder: Path, seconds: float, seed: int) -> str:
    """Play with engines of its own; returns a summary. Raises ``AssertionError``."""
    with (
        EmbeddedKafka(folder / "kafka", heap_mb=384) as kafka,
        EmbeddedClickHouse(folder / "clickhouse") as store,
    ):
        settings = small_batches(
            kafka.bootstrap,
            store.writer_url,
            "chaos",
            "chaos",
            sink_batch_rows=300,
            metrics_port=-1,
        )
        create_topics(settings, 4)
        chaos = Chaos(settings, kafka, store, seed)
        chaos.play(seconds)
    return f"exact: {chaos.steps.sent.steps} steps under {dict(chaos.counts)}"


def main() -> int:
    """Play, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(play(Path(tempfile.mkdtemp(prefix="stepstream-sink-chaos-")), given.seconds, given.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
