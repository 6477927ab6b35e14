"""Records of the usage topic, as the windows read them: a run's minute, a closed run, a partition's progress."""

from __future__ import annotations

from typing import Final

import msgspec

from stepstream.schemas.money import NANOS_PER_USD
from stepstream.schemas.trajectory import RunSummaryStruct

MINUTE_US: Final = 60_000_000

Owner = tuple[str, str, str, str, str, str]
"""Project, environment, agent, agent version, task, and the user where windows of single users are kept, else empty."""

NO_TIME: Final = -1


class UsageLine(msgspec.Struct, gc=False):
    """What windows need of a record of any kind; ``kind`` is ``minute``, ``run`` or ``progress``."""

    kind: str = "minute"
    project: str = "default"
    trace_id: str = ""
    revision: int = 0
    minute: int = NO_TIME
    time: int = NO_TIME
    status: str = ""
    reopened: bool = False
    repeated: bool = False
    partition: int = -1
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    duration_us: int = 0
    steps: int = 0
    error_steps: int = 0
    llm_calls: int = 0
    tool_calls: int = 0
    unpriced_steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: str = "0"

    @property
    def owner(self) -> Owner:
        """Whose it is, without the user."""
        return (self.project, self.environment, self.agent, self.agent_version, self.task, "")


decode_line = msgspec.json.Decoder(UsageLine).decode
decode_summary = msgspec.json.Decoder(RunSummaryStruct).decode


def nanos(usd: str) -> int:
    """The amount in a decimal string that a worker wrote: at most nine digits after the point."""
    whole, _, rest = usd.partition(".")
    return int(whole) * NANOS_PER_USD + (int(rest.ljust(9, "0")) if rest else 0)


def amounts(line: UsageLine) -> tuple[int, ...]:
    """What the steps of a minute used, in the order of ``rows.FIELDS``."""
    return (
        line.steps,
        line.error_steps,
        line.llm_calls,
        line.tool_calls,
        line.unpriced_steps,
        line.input_tokens,
        line.output_tokens,
        line.cached_input_tokens,
        line.cache_write_tokens,
        line.reasoning_tokens,
        nanos(line.cost_usd),
    )
