"""Records of the usage topic, as the windows read them.

A run's minute, a closed run, a partition's progress.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec

from stepstream.schemas.money import written_nanos
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.times import DAY_US, MINUTE_US
from stepstream.schemas.trajectory import USED_AMOUNTS, RunSummaryStruct

Owner = tuple[str, str, str, str, str, str]
"""Project, environment, agent, agent version, task, and the user where windows of single users are
kept, else empty."""

NO_TIME: Final = -1
MAX_AHEAD_US: Final = 2 * DAY_US
"""No step may end later than a day after its record's timestamp, so no usage can be further ahead
of its own."""
MAX_BEHIND_US: Final = 400 * DAY_US
"""Usage of minutes longer ago than that is in no window that is still kept."""

MAX_TEXT: Final = 4_096
Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


# Without the garbage collector (gc=False): a line has no references that could form a cycle.
_Used: Any = msgspec.defstruct("_Used", [(name, Amount, 0) for name in USED_AMOUNTS], gc=False)
_amounts = attrgetter(*USED_AMOUNTS)


class UsageLine(_Used, gc=False):  # type: ignore[misc,call-arg]
    """What windows need of a record of any kind.

    ``kind`` is ``minute``, ``run`` or ``progress``.
    """

    kind: str = "minute"
    project: Name = "default"
    trace_id: Name = ""
    revision: Amount = 0
    minute: int = NO_TIME
    time: int = NO_TIME
    status: str = ""
    success: str = ""
    reopened: bool = False
    repeated: bool = False
    partition: int = -1
    environment: Name = ""
    agent: Name = ""
    agent_version: Name = ""
    task: Name = ""
    user_id: Name = ""
    duration_us: Amount = 0
    cost_usd: str = "0"

    @property
    def owner(self) -> Owner:
        """Whose it is, without the user."""
        return (self.project, self.environment, self.agent, self.agent_version, self.task, "")


decode_line = msgspec.json.Decoder(UsageLine).decode
decode_summary = msgspec.json.Decoder(RunSummaryStruct).decode


def check_summary(summary: RunSummaryStruct, time_us: int) -> None:
    """Raises ``ValueError`` where a closed run cannot have begun at such a time."""
    for name in ("start_time", "end_time", "first_append_time"):
        if not 0 <= getattr(summary, name) <= time_us + MAX_AHEAD_US:
            raise ValueError(
                f"{name} is far from when the record was appended ({time_us}): "
                f"{getattr(summary, name)}"
            )


def check_times(line: UsageLine, time_us: int) -> None:
    """Check that a record is about a time near that at which it was appended.

    Raises:
        ValueError: the time is too far from ``time_us``.
    """
    name, about_us = ("minute", line.minute) if line.kind == "minute" else ("time", line.time)
    if not time_us - MAX_BEHIND_US <= about_us <= time_us + MAX_AHEAD_US:
        raise ValueError(f"{name} is far from when the record was appended ({time_us}): {about_us}")
    if line.kind == "minute" and about_us % MINUTE_US:
        raise ValueError(f"minute is no whole minute: {about_us}")


def amounts(line: UsageLine) -> tuple[int, ...]:
    """What the steps of a minute used, in the order of ``totals.USED``."""
    return (*_amounts(line), written_nanos(line.cost_usd))
