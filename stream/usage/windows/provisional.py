"""Runs that were closed provisionally, until they count.

The root of such a run is in another process and may still come. Then the run belongs to another
agent, so windows and baselines wait for a minute before they count it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, NamedTuple

from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.usage.windows.records import UsageLine

PROVISIONAL_US: Final = MINUTE_US
"""Time from the first summary of a run to when it counts, if no root has come."""


class ProvisionalRun(NamedTuple):
    """The newest summary of a run that does not count yet."""

    line: UsageLine
    summary: RunSummaryStruct
    offset: int
    time_us: int
    """When the summary was appended."""
    due_us: int
    """When the run counts."""
    seals_us: int
    """The time that it must count before: its slot is sealed then."""


class ProvisionalRuns:
    """Those of one partition."""

    def __init__(self) -> None:
        self._runs: dict[str, ProvisionalRun] = {}
        # A run whose summary was replaced keeps its time; one that was taken is skipped when due.
        self._due: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, trace_id: str) -> ProvisionalRun | None:
        """The run, if it is waiting."""
        return self._runs.get(trace_id)

    def put(self, run: ProvisionalRun) -> None:
        """Keep a run, in place of its older summary."""
        trace_id = run.line.trace_id
        if trace_id not in self._runs:
            heappush(self._due, (run.due_us, trace_id))
        self._runs[trace_id] = run

    def take(self, trace_id: str) -> ProvisionalRun | None:
        """Remove and return a run."""
        return self._runs.pop(trace_id, None)

    def take_due(self, now_us: int) -> list[ProvisionalRun]:
        """Remove and return the runs that count from ``now_us`` on."""
        taken: list[ProvisionalRun] = []
        while self._due and self._due[0][0] <= now_us:
            due_us, trace_id = heappop(self._due)
            run = self._runs.get(trace_id)
            if run is not None and run.due_us == due_us:
                taken.append(self._runs.pop(trace_id))
        return taken

    def take_sealed(self, until_us: int) -> list[ProvisionalRun]:
        """Remove and return the runs whose slots are sealed with everything before ``until_us``."""
        found = sorted(name for name, run in self._runs.items() if run.seals_us < until_us)
        return [self._runs.pop(name) for name in found]
