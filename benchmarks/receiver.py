"""A subscriber in a process of its own: when which revision of a run's trajectory arrived."""

from __future__ import annotations

import sys
import threading
import time

import msgspec

from benchmarks.child import Answer, Child, serve
from stepstream.common.kafka import consumer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic


class _Head(msgspec.Struct):
    trace_id: str
    revision: int


class Receiver:
    """The parent's side."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._child = Child.module("benchmarks.receiver", settings.model_dump_json(), prefix)
        self._child.wait(60)

    @property
    def pid(self) -> int:
        return self._child.pid

    def arrivals(self) -> dict[str, list[tuple[float, int]]]:
        """By trace_id: (moment on ``time.monotonic``'s clock, revision), in order."""
        return dict(self._child.ask(60, do="arrivals")["arrivals"])

    def close(self) -> None:
        self._child.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Receiving:
    """The child's side: reads the topic in a thread, keeps what concerns runs whose id begins with
    the prefix."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        # A group of its own: one that an ended receiver never left would keep its partitions for 45
        # s.
        group = f"{settings.topic_prefix}.receiver"
        self._client = consumer(settings, group, **{"fetch.wait.max.ms": 5, "fetch.min.bytes": 1})
        self._prefix = prefix.encode()
        self._kept: dict[str, list[tuple[float, int]]] = {}
        self._assigned = threading.Event()
        self._client.subscribe(
            [topic(settings.topic_prefix, "trajectories")],
            on_assign=lambda *_: self._assigned.set(),
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self._assigned.wait(30):
            raise TimeoutError(
                "the receiver got no partitions within 30 s: what arrives would seem late"
            )

    def _read(self) -> None:
        decode = msgspec.json.Decoder(_Head).decode
        while True:
            messages = self._client.consume(1_000, 0.01)
            now = time.monotonic()
            for message in messages:
                if message.error() is None and (message.key() or b"").startswith(self._prefix):
                    head = decode(message.value() or b"")
                    self._kept.setdefault(head.trace_id, []).append((now, head.revision))

    def arrivals(self) -> Answer:
        return {"arrivals": dict(self._kept)}


if __name__ == "__main__":
    receiving = _Receiving(Settings.model_validate_json(sys.argv[1]), sys.argv[2])
    print('{"ready": true}', flush=True)
    serve({"arrivals": receiving.arrivals})
