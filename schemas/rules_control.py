"""Rules about orders to running agents."""

from __future__ import annotations

from typing import Literal

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.times import MINUTE_US


class StopIgnored(RuleBase):
    """The run was ordered to stop, and goes on."""

    rule: Literal["stop_ignored"]
    after: DurationUs = MINUTE_US
