"""Where a partition's live state records lie, so that a restart reads only the part of the topic that still matters."""

from __future__ import annotations

from collections import deque
from typing import Final

from stepstream.stream.assemble.state import floor_metadata

SAMPLE_EVERY_US: Final = 1_000_000
REFRESH_FLOORS: Final = 1_000


class StateIndex:
    """Lowest offset on the state topic that a restart needs: open runs' states, and closed ones within the horizon."""

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
        """Something else than a run's state lies at ``offset`` and is needed until ``drop``."""
        self._open[name] = offset

    def drop(self, name: str) -> None:
        """What was kept under this name is needed no more."""
        self._open.pop(name, None)

    def pin(self, offset: int, until_us: int) -> None:
        """Something else than a run's state lies at ``offset`` and is needed until then, in log time."""
        self._pins.append((offset, until_us))

    def metadata(self, floor: int) -> str:
        """What to commit beside a floor."""
        if floor >= self._refresh_at:
            self._refresh_at = floor + max(
                REFRESH_FLOORS, len(self._open) // 10
            )  # it looks at each of them
            self._refresh()
        return floor_metadata(self._lowest)

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
