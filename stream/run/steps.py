"""One step as the worker keeps it: the fields that totals, tree and detectors need, without
contents.
"""

from __future__ import annotations

import zlib
from sys import intern
from typing import Final

import msgspec

from stepstream.schemas.prices import Cost
from stepstream.schemas.step import Step
from stepstream.schemas.usage import NO_TOKENS, TokenUsage

Tokens = tuple[int, int, int, int, int]
"""Input, output, cached input, cache write, reasoning."""

NO_TOKEN_COUNTS: Final[Tokens] = (0, 0, 0, 0, 0)
MAX_ERROR_CHARS: Final = 300
MAY_REPEAT: Final = 1
REPEATS: Final = 2


# gc=False: a step refers to strings and numbers only, and the collector need not visit millions.
class StepInfo(msgspec.Struct, array_like=True, gc=False):
    """A step of an open run. New fields are added at the end, with defaults: state records of older
    workers lack them.
    """

    step_id: str
    parent: str
    kind: str
    name: str
    start_us: int
    append_us: int
    started: bool = False
    ended: bool = False
    end_us: int = 0
    status: str = "running"
    tool: str = ""
    model: str = ""
    agent: str = ""
    agent_version: str = ""
    error_type: str = ""
    error_message: str = ""
    attempt: int = 1
    retry_of: str = ""
    fallback_of: str = ""
    tokens: Tokens = NO_TOKEN_COUNTS
    cost_nanos: int | None = None
    cost_source: str = ""
    input_hash: int = 0
    output_hash: int = 0
    repeat: int = 0
    """``MAY_REPEAT`` for a call whose usage may be that of calls below it, ``REPEATS`` once one of
    them is known.
    """
    parent_unknown: bool = False
    """Its sender did not state whether the parent is in another process."""

    @property
    def is_open(self) -> bool:
        """Started and not ended."""
        return self.started and not self.ended

    @property
    def label(self) -> str:
        """The name for messages: the tool or model where there is one, else the step's name."""
        return self.tool or (self.name if self.kind != "llm_call" else self.model or self.name)


def text_size(info: StepInfo) -> int:
    """The number of characters in a step's names and messages."""
    return (
        len(info.name)
        + len(info.tool)
        + len(info.model)
        + len(info.agent)
        + len(info.agent_version)
        + len(info.error_type)
        + len(info.error_message)
    )


def drop_texts(info: StepInfo) -> None:
    """Drop the step's names and messages. Without an agent it counts for its run's agent."""
    info.name = info.tool = info.model = info.agent = info.agent_version = info.error_type = (
        info.error_message
    ) = ""


def started_step(step: Step, parent: str, append_us: int) -> StepInfo:
    """The step from its start record. ``parent`` is its parent's id, the run's own string object
    where it has one.
    """
    # Names are interned: most steps share them with others. Positional arguments are faster.
    return StepInfo(
        step.step_id,
        parent,
        intern(step.kind),
        intern(step.name),
        step.start_time,
        append_us,
        True,
        False,
        0,
        "running",
        intern(step.tool),
        intern(step.model),
        intern(step.agent),
        intern(step.agent_version),
        "",
        "",
        step.attempt,
        step.retry_of,
        step.fallback_of,
    )


def ended_step(
    step: Step, parent: str, cost: Cost, before: StepInfo | None, append_us: int
) -> StepInfo:
    """The step from its end record, which replaces everything that its start, ``before``, had;
    ``parent`` as for a start.
    """
    # A new object: to set every field of the old one costs twice as much. The values that both have
    # are taken from the old one, so that a run's steps stay close together in memory.
    step_id, start_us, started = step.step_id, step.start_time, False
    if before is not None:
        step_id, append_us, started = before.step_id, before.append_us, True
        if before.start_us == start_us:
            start_us = before.start_us
    usage = step.usage
    return StepInfo(
        step_id,
        parent,
        intern(step.kind),
        intern(step.name),
        start_us,
        append_us,
        started,
        True,
        step.end_time or start_us,
        intern(step.status),
        intern(step.tool),
        intern(step.model),
        intern(step.agent),
        intern(step.agent_version),
        step.error_type,
        step.error_message[:MAX_ERROR_CHARS],
        step.attempt,
        step.retry_of,
        step.fallback_of,
        NO_TOKEN_COUNTS if usage is None or usage == NO_TOKENS else _counts(usage),
        cost.nanos,
        intern(cost.source),
        content_hash(step.input),
        content_hash(step.output),
        MAY_REPEAT if step.usage_may_repeat else 0,
        step.parent_unknown,
    )


def _counts(usage: TokenUsage) -> Tokens:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


def content_hash(text: str) -> int:
    """A hash of contents that is the same in every process; 0 for an empty text."""
    if not text:
        return 0
    data = text.encode("utf-8", "replace")
    # The length in the low half makes texts of different lengths differ whatever their checksums.
    return zlib.crc32(data) << 32 | len(data)
