"""Which requests are read at all: bytes in flight, Kafka's state, and the rate of each project.
Pure; times are passed in.

Every decision is made before a body is read. Without a limit, latency grows with the number of
clients: 64 connections took 5.9 s at the 99th percentile, and exporters give up after 5 to 10 s.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

TARGET_S: Final = 0.8
"""A request that takes longer shows that too much is in flight."""
SHORT_S: Final = 0.4
"""While requests take less, more may be in flight."""
LEAST_BYTES: Final = 256 << 10
# Ten bodies of 512 spans, gzipped: half a second of work. 4 MB were two seconds, so that the first
# overload exceeded the target before the limit had adapted.
FIRST_BYTES: Final = 1 << 20
UNKNOWN_BYTES: Final = 256 << 10
"""What a body without a Content-Length counts for."""
MAX_PROJECTS: Final = 10_000
BURST_S: Final = 2.0
"""A project may use up the rate of this many seconds at once."""


@dataclass(frozen=True)
class Refusal:
    """A request that is not read now: the status, the sentence, and when to come again."""

    status: int
    sentence: str
    retry_after_s: int


class Admission:
    """Counts what is in flight and adapts how much may be. HTTP and gRPC, which have a thread each,
    share one.
    """

    def __init__(self, max_bytes: int, spans_per_s: int = 0) -> None:
        """``spans_per_s`` is the rate that each project may send for long; 0 for any."""
        self._most = max(max_bytes, LEAST_BYTES)
        self.limit_bytes = float(min(FIRST_BYTES, self._most))
        self.in_flight_bytes = 0
        self.in_flight = 0
        self._lowered_s = 0.0
        self._guard = threading.Lock()
        self._rate = spans_per_s
        self._left: dict[str, tuple[float, float]] = {}

    def enter(self, size: int, project: str, now_s: float) -> Refusal | None:
        """Admit a request of ``size`` bytes on the wire, or return the refusal.

        ``leave`` must be called once for each admitted request.
        """
        if self._rate and (wait_s := self._wait_s(project, now_s)) > 0:
            return Refusal(
                429,
                f"project {project} sends more than {self._rate} spans a second: send less, or "
                "raise gateway_rate_limit",
                min(60, int(wait_s) + 1),
            )
        # A lone request is always read, however large: else it would never be.
        with self._guard:
            if self.in_flight and self.in_flight_bytes + size > self.limit_bytes:
                return Refusal(503, "too many requests are in flight: try again", 1)
            self.in_flight += 1
            self.in_flight_bytes += size
        return None

    def leave(
        self, size: int, began_s: float, now_s: float, *, counts: bool, waited_s: float = 0.0
    ) -> None:
        """Count a request as answered. ``counts`` is false where its duration does not depend on
        load, and so must not change the limit; ``waited_s`` is how long its body took to arrive,
        which a slow client could otherwise use to shut out the others.
        """
        took_s = now_s - began_s - waited_s
        with self._guard:
            full = self.in_flight_bytes > self.limit_bytes / 2
            self.in_flight -= 1
            self.in_flight_bytes -= size
            if counts:
                self._adapt(size, began_s, now_s, took_s, full=full)

    def _adapt(self, size: int, began_s: float, now_s: float, took_s: float, *, full: bool) -> None:
        if took_s > TARGET_S:
            # Once for all that were admitted under the old limit.
            if began_s >= self._lowered_s:
                self.limit_bytes = max(LEAST_BYTES, self.limit_bytes * 0.7)
                self._lowered_s = now_s
        elif full and took_s < SHORT_S:
            self.limit_bytes = min(self._most, self.limit_bytes + max(size, 16_384) * 0.1)

    def spent(self, project: str, spans: int, now_s: float) -> None:
        """A project has sent spans: what exceeds its rate is refused until the time has made up
        for it.
        """
        if not self._rate:
            return
        self._left[project] = (self._available(project, now_s) - spans, now_s)
        if len(self._left) > MAX_PROJECTS:
            self._left.pop(next(iter(self._left)))

    def _available(self, project: str, now_s: float) -> float:
        most = self._rate * BURST_S
        left, then_s = self._left.get(project, (most, now_s))
        return min(most, left + max(0.0, now_s - then_s) * self._rate)

    def _wait_s(self, project: str, now_s: float) -> float:
        left = self._available(project, now_s)
        return 0.0 if left > 0 else -left / self._rate + 1 / self._rate
