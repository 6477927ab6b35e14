"""Latency of a run's records: from being sent to the first trajectory that contains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.harness import percentile

# Moments and revisions of a run's trajectories, in order of arrival.
Arrivals = Sequence[Sequence[float]]


@dataclass(slots=True)
class Latencies:
    """Seconds. ``opening`` is for a run's first record, which is published at once; ``every`` is
    for all records, most of which wait for the run's next revision; ``missing`` counts records that
    no trajectory contained in the end."""

    opening: list[float] = field(default_factory=list)
    every: list[float] = field(default_factory=list)
    missing: int = 0

    def figures(self, label: str) -> dict[str, float]:
        """p50 and p99 in milliseconds, by name."""
        named = {"opening": self.opening, "every_event": self.every}
        return {
            f"{label}_{name}_p{share}_ms": percentile(values, share / 100) * 1000
            for name, values in named.items()
            if values
            for share in (50, 99)
        }


def event_to_trajectory(
    sent: Mapping[str, Sequence[float]],
    arrived: Mapping[str, Arrivals],
    *,
    since_s: float,
    until_s: float,
) -> Latencies:
    """Latencies of the records sent between two moments.

    A revision is twice the number of distinct records it contains (and one more when closed), and a
    run's records arrive in the order in which they were sent: so the k-th record is in the first
    trajectory of revision 2k or more.
    """
    found = Latencies()
    for trace_id, moments in sent.items():
        trajectories = arrived.get(trace_id, ())
        index = 0
        for number, moment in enumerate(moments, 1):
            while index < len(trajectories) and trajectories[index][1] < 2 * number:
                index += 1
            if not since_s <= moment <= until_s:
                continue
            if index == len(trajectories):
                found.missing += 1
                continue
            took = trajectories[index][0] - moment
            found.every.append(took)
            if number == 1:
                found.opening.append(took)
    return found
