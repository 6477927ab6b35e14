"""Pauses before restarts, and a filter for log lines that repeat."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
REPEAT_S: Final = 10.0
KINDS_OF_LINES: Final = 500
_NUMBERS: Final = re.compile(r"\d+")


@dataclass
class RestartPauses:
    """Pauses before a restart: doubled each time, the first one again after a minute of running."""

    pause_s: float = 0.0

    def next_pause(self, ran_s: float) -> float:
        """The pause in seconds after a run of ``ran_s`` seconds."""
        doubled = min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.pause_s = FIRST_PAUSE_S if ran_s >= STEADY_S or not self.pause_s else doubled
        return self.pause_s


class RepeatFilter:
    """Lets a line through that is new, and a repeated one every ten seconds with its count.

    Clients log the same line many times a second while their server does not answer.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, line: str, now_s: float) -> str | None:
        """The line to log, or None. Lines that differ only in numbers are the same line."""
        key = _NUMBERS.sub("#", line)
        since_s, times = self._known.get(key, (-math.inf, 0))
        if now_s - since_s < REPEAT_S:
            self._known[key] = since_s, times + 1
            return None
        self._known[key] = now_s, 0
        self._known.move_to_end(key)
        if len(self._known) > KINDS_OF_LINES:
            self._known.popitem(last=False)
        return f"{line} ({times} more in {now_s - since_s:.0f} s)" if times else line
