"""The totals of one owner in a period of time.

Only sums, so they do not depend on the order of additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import Final

from stepstream.schemas.fleet import WindowMinuteStruct
from stepstream.schemas.latency import latency_bucket
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.trajectory import USED_AMOUNTS

USED: Final = (*USED_AMOUNTS, "cost_nanos")
RUNS: Final = (
    "runs",
    "failed_runs",
    "cancelled_runs",
    "success_true_runs",
    "success_false_runs",
)
FIELDS: Final = USED + RUNS
STEPS: Final = FIELDS.index("steps")
INPUT_TOKENS: Final = FIELDS.index("input_tokens")
OUTPUT_TOKENS: Final = FIELDS.index("output_tokens")
COST: Final = FIELDS.index("cost_nanos")
ALL_RUNS: Final = FIELDS.index("runs")
FAILED: Final = FIELDS.index("failed_runs")
CANCELLED: Final = FIELDS.index("cancelled_runs")
SUCCESS_TRUE: Final = FIELDS.index("success_true_runs")
SUCCESS_FALSE: Final = FIELDS.index("success_false_runs")

FAILURES: Final = frozenset(("error", "incomplete"))
STOPPED: Final = frozenset(("cancelled", "stopped"))


class Totals:
    """Sums in the order of ``FIELDS``, and closed runs by duration."""

    __slots__ = ("latency", "sums")

    def __init__(self) -> None:
        self.sums = [0] * len(FIELDS)
        self.latency: dict[int, int] | None = None

    def use(self, difference: Sequence[int]) -> None:
        """Add what steps used: the amounts of ``USED``, in their order."""
        self.sums[: len(difference)] = map(add, self.sums, difference)

    def run(self, status: str, duration_us: int, times: int, success: str = "") -> None:
        """Count a closed run, or take it back with ``times=-1``."""
        sums = self.sums
        sums[ALL_RUNS] += times
        if status in FAILURES:
            sums[FAILED] += times
        elif status in STOPPED:
            sums[CANCELLED] += times
        # Runs whose success is unknown, or that no Criteria match, are in neither sum.
        if success == "true":
            sums[SUCCESS_TRUE] += times
        elif success == "false":
            sums[SUCCESS_FALSE] += times
        bucket = latency_bucket(duration_us)
        latency = self.latency = self.latency or {}
        latency[bucket] = latency.get(bucket, 0) + times
        # A bucket of 0 would be written to the fleet topic, and differ from one never counted.
        if not latency[bucket]:
            del latency[bucket]

    def join(self, other: Totals) -> None:
        """Add another row."""
        self.use(other.sums)
        if other.latency:
            latency = self.latency = self.latency or {}
            for bucket, count in other.latency.items():
                latency[bucket] = latency.get(bucket, 0) + count

    @property
    def cost_nanos(self) -> int:
        """What it cost, as far as that is known."""
        return self.sums[COST]

    @property
    def finished(self) -> int:
        """Runs that came to an end of their own, good or bad."""
        return self.sums[ALL_RUNS] - self.sums[CANCELLED]

    @property
    def evaluated(self) -> int:
        """Runs whose success by Criteria is known."""
        return self.sums[SUCCESS_TRUE] + self.sums[SUCCESS_FALSE]

    @property
    def is_empty(self) -> bool:
        """Whether all that was added was taken back."""
        return not any(self.sums) and not self.latency


def totals_to_minute(minute: int, row: Totals) -> WindowMinuteStruct:
    """A row as it stands on the fleet topic.

    A sum that has no place there stands at the nearest value that has.
    """
    latency = {str(bucket): count for bucket, count in sorted((row.latency or {}).items())}
    # Readers refuse other values: the whole hour would be missing after a restart.
    sums = [min(max(0, amount), MAX_COUNT) for amount in row.sums]
    return WindowMinuteStruct(
        minute=minute, latency=latency, **dict(zip(FIELDS, sums, strict=True))
    )


def totals_from_minute(minute: WindowMinuteStruct) -> Totals:
    """The row that a record on the fleet topic holds."""
    row = Totals()
    row.sums = [getattr(minute, name) for name in FIELDS]
    row.latency = {int(bucket): count for bucket, count in minute.latency.items()} or None
    return row
