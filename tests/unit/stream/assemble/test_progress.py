"""What partitions of steps report to the windows: never more than is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from stepstream.stream.assemble.progress import EVERY_US, MARGIN_US, ProgressReporter
from stepstream.stream.assemble.publish_schedule import PublishSchedule
from stepstream.stream.core.clock import CATCH_UP_US, PartitionClock
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.usage.windows.watermark import Watermark

LIMITS = AssembleLimits(revision_interval_us=1_000_000, usage_interval_us=3_000_000)
NOW_US = 1_700_000_000_000_000


def ignore(*_: object) -> None:
    """Ignores its arguments."""


@dataclass
class Assemble:
    partition: int = 0
    clock: PartitionClock = field(default_factory=PartitionClock)
    publisher: PublishSchedule = field(
        default_factory=lambda: PublishSchedule({}, LIMITS, Counters(), ignore, ignore)
    )


def reported(outputs: list[Output]) -> set[int]:
    return {msgspec.json.decode(output.value or b"")["time"] for output in outputs}


def test_progress_keeps_behind_what_waits_to_be_published() -> None:
    """Usage may wait for an interval: progress reports no time within it. To all, periodically."""
    reporter, logic = ProgressReporter(3, LIMITS), Assemble()
    logic.clock.advance(NOW_US, watching=False)
    outputs = reporter.due(logic)
    # Usage of this time may still be unpublished: windows must not be sealed past it.
    assert reported(outputs) == {NOW_US - 3_000_000 - MARGIN_US}
    assert [output.partition for output in outputs] == [0, 1, 2]
    logic.clock.advance(NOW_US + EVERY_US - 1, watching=False)
    assert reporter.due(logic) == []
    logic.clock.advance(NOW_US + EVERY_US, watching=False)
    assert len(reporter.due(logic)) == 3


def test_nothing_is_reported_while_timers_wait() -> None:
    """After a jump of the clock, timers publish late: progress waits for them."""
    reporter, logic = ProgressReporter(1, LIMITS), Assemble()
    logic.clock.advance(NOW_US, watching=True)
    assert reporter.due(logic) == []
    # Timers wait for this long after a jump, so progress does as well.
    for second in range(1, CATCH_UP_US // 1_000_000 + 1):
        logic.clock.advance(NOW_US + second * 1_000_000, watching=True)
    assert len(reporter.due(logic)) == 1


def test_the_slowest_partition_decides() -> None:
    """Nothing is known before all have reported; repeats of an old owner move nothing back."""
    watermark = Watermark(2)
    assert not watermark.advance(0, 50)
    assert watermark.advance(1, 30)
    assert watermark.time_us == 30
    assert not watermark.advance(1, 20)
    assert not watermark.advance(0, 60)
    # A partition that does not exist: a record of before the topic was made anew.
    assert not watermark.advance(7, 90)
    assert watermark.advance(1, 55)
    assert watermark.time_us == 55
