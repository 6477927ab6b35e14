"""Bounds the share of retries: an agent that fails always must not multiply its own traffic. Pure.

A token bucket for each agent. A first attempt adds ``SHARE`` of a token and a retry takes one, so
that retries are at most a fifth of the traffic over time. ``RESERVE`` tokens and ``REFILL_PER_S``
let an agent with little traffic retry at all. A retry without a token is not given up: it waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.2
RESERVE: Final = 10.0
MOST: Final = 1_000.0
REFILL_PER_S: Final = 0.1
MAX_WAIT_US: Final = 600_000_000
MAX_AGENTS: Final = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_us: int


class RetryBudgets:
    """The budgets of one project's agents. They begin full after a restart."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def first_attempt(self, agent: str, now_us: int) -> None:
        """A task has its first attempt."""
        bucket = self._bucket(agent, now_us)
        bucket.tokens = min(MOST, bucket.tokens + SHARE)

    def retry(self, agent: str, now_us: int) -> int:
        """Take a token. Returns how long (us) the retry has to wait for it."""
        bucket = self._bucket(agent, now_us)
        bucket.tokens -= 1
        if bucket.tokens >= 0:
            return 0
        return min(MAX_WAIT_US, round(-bucket.tokens / REFILL_PER_S * 1e6))

    def _bucket(self, agent: str, now_us: int) -> _Bucket:
        bucket = self._buckets.get(agent)
        if bucket is None:
            if len(self._buckets) >= MAX_AGENTS:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[agent] = _Bucket(RESERVE, now_us)
        if bucket.tokens < RESERVE:
            gained = max(0, now_us - bucket.at_us) / 1e6 * REFILL_PER_S
            bucket.tokens = min(RESERVE, bucket.tokens + gained)
        bucket.at_us = max(bucket.at_us, now_us)
        return bucket
