"""A transport that keeps records in memory, for tests of programs that use the SDK.

transport = stepstream.MemoryTransport()
stepstream.configure(transport=transport)
...
stepstream.flush()
assert [step.name for step in transport.ended] == ["plan", "answer"]
"""

from __future__ import annotations

import threading

from stepstream.producers.transport.base import Done, Record, Undelivered
from stepstream.schemas.step import StepEvent


class MemoryTransport:
    """Keeps every record that it takes.

    ``room`` limits the unacknowledged records. ``unreachable``: takes records and never
    acknowledges them, like a broker that does not answer. ``failure``: every record fails with this
    reason.
    """

    def __init__(
        self, *, room: int = 1_000_000, unreachable: bool = False, failure: str = ""
    ) -> None:
        self.room = room
        self.unreachable = unreachable
        self.failure = failure
        self.records: list[Record] = []
        self.closed = 0
        self._under_way: list[tuple[Record, Done]] = []
        self._lock = threading.Lock()

    def send(self, record: Record, done: Done) -> bool:
        with self._lock:
            if len(self._under_way) >= self.room:
                return False
            self._under_way.append((record, done))
            return True

    def poll(self, timeout_s: float) -> None:
        if self.unreachable:
            # As a client without brokers does, so that the sender's thread does not spin.
            threading.Event().wait(timeout_s)
            return
        with self._lock:
            settled, self._under_way = self._under_way, []
        for record, done in settled:
            if not self.failure:
                self.records.append(record)
            done(self.failure)

    def close(self) -> None:
        self.closed += 1
        with self._lock:
            given_up, self._under_way = self._under_way, []
        for _record, done in given_up:
            done(Undelivered("the transport was closed"))

    def abandon(self) -> None:
        self._lock = threading.Lock()
        self._under_way = []

    @property
    def events(self) -> list[StepEvent]:
        """Every event, in the order in which it was sent."""
        return [StepEvent.model_validate_json(record.value) for record in self.records]

    @property
    def started(self) -> list[StepEvent]:
        """Start events, in order."""
        return [event for event in self.events if event.phase == "start"]

    @property
    def ended(self) -> list[StepEvent]:
        """End events, in order. Each is the complete record of its step."""
        return [event for event in self.events if event.phase == "end"]
