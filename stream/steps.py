"""One step as the worker keeps it: what totals, tree and detectors need, no contents."""

from __future__ import annotations

import zlib
from sys import intern
from typing import Final

import msgspec

from stepstream.schemas.prices import Cost
from stepstream.schemas.step import NO_TOKENS, Step

Tokens = tuple[int, int, int, int, int]
"""Input, output, cached input, cache write, reasoning."""

NO_TOKEN_COUNTS: Final[Tokens] = (0, 0, 0, 0, 0)
MAX_ERROR_CHARS: Final = 300


class StepInfo(msgspec.Struct, array_like=True, gc=False):
    """A step of an open run. New fields are added at the end, with defaults: state records of older workers lack them."""

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

    @property
    def is_open(self) -> bool:
        """Started and not ended."""
        return self.started and not self.ended

    @property
    def label(self) -> str:
        """What people call it: the tool or model where there is one, else the name."""
        return self.tool or (self.name if self.kind != "llm_call" else self.model or self.name)


def text_size(info: StepInfo) -> int:
    """Characters of the names and messages that a step holds."""
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
    """Keep the step's place, times and numbers alone; it counts for its run's agent."""
    info.name = info.tool = info.model = info.agent = info.agent_version = info.error_type = info.error_message = ""


def new_step(step: Step, append_us: int) -> StepInfo:
    """The step of a first record; ``merge_record`` fills in the rest."""
    return StepInfo(step.step_id, step.parent_step_id, step.kind, step.name, step.start_time, append_us)


def merge_record(info: StepInfo, step: Step, cost: Cost) -> bool:
    """Take over what a record says; False for a duplicate. An end replaces what a start said, whichever came first."""
    if step.phase == "start":
        if info.started:
            return False
        info.started = True
        if not info.ended:
            _take_over(info, step)
        return True
    if info.ended:
        return False
    info.ended = True
    _take_over(info, step)
    _take_over_end(info, step, cost)
    return True


def _take_over(info: StepInfo, step: Step) -> None:
    info.parent = step.parent_step_id
    info.kind = intern(step.kind)
    info.name = intern(step.name)
    info.tool = intern(step.tool)
    info.model = intern(step.model)
    info.agent = intern(step.agent)
    info.agent_version = intern(step.agent_version)
    info.start_us = step.start_time
    info.attempt = step.attempt
    info.retry_of = step.retry_of
    info.fallback_of = step.fallback_of


def _take_over_end(info: StepInfo, step: Step, cost: Cost) -> None:
    info.end_us = step.end_time or step.start_time
    info.status = step.status
    if step.error_type or step.error_message:
        info.error_type = step.error_type
        info.error_message = step.error_message[:MAX_ERROR_CHARS]
    usage = step.usage or NO_TOKENS
    if usage is not NO_TOKENS:
        info.tokens = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        )
    info.cost_nanos = cost.nanos
    info.cost_source = cost.source
    if step.input:
        info.input_hash = content_hash(step.input)
    if step.output:
        info.output_hash = content_hash(step.output)


def content_hash(text: str) -> int:
    """A hash of contents that is the same in every process; 0 is kept for no content."""
    data = text.encode("utf-8", "replace")
    return (zlib.crc32(data) << 32 | zlib.adler32(data)) or 1
