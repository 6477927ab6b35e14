"""Where a partition's current state records are, so that a restart reads only the part of the topic
that it needs.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from stepstream.common.commit_metadata import WORKER

SAMPLE_EVERY_US: Final = 1_000_000
"""Closed runs' state records are remembered by one offset for so much log time."""

REFRESH_OFFSETS: Final = 1_000
"""The lowest offset is worked out again after this many records."""


class StateIndex:
    """Lowest offset on the state topic that a restart needs: open runs' states, and closed ones
    within the horizon.
    """

    def __init__(self, horizon_us: int, start: int = 0) -> None:
        self._horizon_us = horizon_us
        self._open: dict[str, int] = {}
        self._samples: deque[tuple[int, int]] = deque()
        self._pins: list[tuple[int, int]] = []
        self._now_us = 0
        self._lowest = start
        self._refresh_at = 0

    def written(self, trace_id: str, offset: int, *, closed: bool, closed_at_us: int) -> None:
        """A state record was acknowledged, or was read at restart."""
        if not closed:
            self._open[trace_id] = offset
            return
        self._open.pop(trace_id, None)
        self._now_us = max(self._now_us, closed_at_us)
        if not self._samples or closed_at_us - self._samples[-1][0] >= SAMPLE_EVERY_US:
            self._samples.append((closed_at_us, offset))

    def keep(self, name: str, offset: int) -> None:
        """A record other than a run's state is at ``offset`` and is needed until ``drop``."""
        self._open[name] = offset

    def drop(self, name: str) -> None:
        """The record kept under this name is not needed any more."""
        self._open.pop(name, None)

    def pin(self, offset: int, until_us: int) -> None:
        """A record other than a run's state is at ``offset`` and is needed until this log time."""
        self._pins.append((offset, until_us))

    def metadata(self, safe_offset: int) -> str:
        """The metadata to commit with a safe offset."""
        if safe_offset >= self._refresh_at:
            # A refresh iterates over every open run, so with many of them it is done less often.
            self._refresh_at = safe_offset + max(REFRESH_OFFSETS, len(self._open) // 10)
            self._refresh()
        return WORKER.encode(self._lowest)

    def _refresh(self) -> None:
        oldest_us = self._now_us - self._horizon_us
        while len(self._samples) > 1 and self._samples[1][0] < oldest_us:
            self._samples.popleft()
        self._pins = [pin for pin in self._pins if pin[1] >= self._now_us]
        candidates = [*self._open.values(), *(offset for offset, _ in self._pins)]
        if self._samples:
            candidates.append(self._samples[0][1])
        if candidates:
            self._lowest = max(self._lowest, min(candidates))
