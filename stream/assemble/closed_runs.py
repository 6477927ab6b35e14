"""Closed runs for late steps: their states for the late horizon, then only their ids."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

BUCKETS: Final = 12


class ClosedRuns:
    """States of closed runs by trace id, at most ``max_runs`` of them, for ``horizon_us`` of log
    time.

    Of a run whose state was dropped the id is kept, so that a late step of it is recognized as too
    late and does not begin a new run.
    """

    def __init__(self, horizon_us: int, max_runs: int) -> None:
        self._horizon_us = horizon_us
        self._max_runs = max_runs
        self._states: OrderedDict[str, tuple[int, int, bytes]] = OrderedDict()
        self._ids: deque[tuple[int, set[int]]] = deque()
        self.size_bytes = 0
        """Size of the states."""

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, trace_id: str) -> bool:
        return trace_id in self._states

    def put(self, trace_id: str, closed_at_us: int, through: int, state: bytes) -> None:
        """Keep a closed run's state, which contains every record up to offset ``through``."""
        if trace_id in self._states:
            self.take(trace_id)
        self._states[trace_id] = (closed_at_us, through, state)
        self.size_bytes += len(state)
        while len(self._states) > self._max_runs:
            self._drop_oldest()

    def shed(self, excess_bytes: int) -> int:
        """Drop the states of the runs that closed first, until they add up to ``excess_bytes``.
        Returns how many.
        """
        enough, before = self.size_bytes - excess_bytes, len(self._states)
        while self._states and self.size_bytes > enough:
            self._drop_oldest()
        return before - len(self._states)

    def _drop_oldest(self) -> None:
        trace_id, (closed_us, _, state) = self._states.popitem(last=False)
        self.size_bytes -= len(state)
        self._remember(trace_id, closed_us)

    def through(self, trace_id: str) -> int | None:
        """The last offset that a run's state contains; None where no state is kept."""
        found = self._states.get(trace_id)
        return None if found is None else found[1]

    def take(self, trace_id: str) -> bytes:
        """Remove and return a run's state, which must be kept."""
        state = self._states.pop(trace_id)[2]
        self.size_bytes -= len(state)
        return state

    def is_known(self, trace_id: str) -> bool:
        """Whether the run was closed lately and its state was dropped."""
        key = hash(trace_id)
        for _, ids in self._ids:  # noqa: SIM110  (asked for every new run: a generator costs more than the look-ups)
            if key in ids:
                return True
        return False

    def expire(self, now_us: int) -> None:
        """Drop the states of runs that closed before the horizon, and ids after twice as long."""
        oldest_us = now_us - self._horizon_us
        while self._states:
            closed_us, _, _ = next(iter(self._states.values()))
            if closed_us >= oldest_us:
                break
            self._drop_oldest()
        while self._ids and self._ids[0][0] < now_us - 2 * self._horizon_us:
            self._ids.popleft()

    def _remember(self, trace_id: str, closed_us: int) -> None:
        bucket_us = max(1, self._horizon_us // BUCKETS)
        if not self._ids or closed_us - self._ids[-1][0] > bucket_us:
            self._ids.append((closed_us, set()))
        self._ids[-1][1].add(hash(trace_id))
