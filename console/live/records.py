"""Records of Kafka as viewers get them: steps with the columns of the store, alerts as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from stepstream.console.live.buffer import Kept
from stepstream.schemas.accept import Accepted, Limits, accept
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import Step
from stepstream.schemas.usage import NO_TOKENS

MESSAGE_CHARS: Final = 500
NANOS: Final = 1_000_000_000
_AS_IS: Final = (
    "step_id", "parent_step_id", "kind", "name", "agent", "tool", "model", "start_time", "attempt",
    "retry_of", "fallback_of", "project",
)  # fmt: skip


def step_reader(
    partition: int, partitions: int, limits: Limits, prices: Callable[[], PriceBook]
) -> Callable[[Kept], dict[str, Any] | None]:
    """Reads records of one partition of the steps topic; None for those that are no valid step."""

    def read(record: Kept) -> dict[str, Any] | None:
        result = accept(
            record.value,
            key=record.key,
            partition=partition,
            partitions=partitions,
            timestamp_us=record.timestamp_ms * 1000,
            limits=limits,
        )
        return step_of(result, prices()) if isinstance(result, Accepted) else None

    return read


def step_of(accepted: Accepted, prices: PriceBook) -> dict[str, Any]:
    """A step with the columns of ``/runs/ID/steps``, its phase and its project."""
    step = accepted.step
    started = step.phase == "start"
    usage = step.usage or NO_TOKENS
    cost = None if started else prices.cost(step, accepted.cost_nanos)
    return {
        "phase": step.phase,
        **{name: getattr(step, name) for name in _AS_IS},
        "end_time": None if started else step.end_time,
        "first_token_us": _first_token(step),
        "status": "running" if started else step.status,
        "error_type": step.error_type,
        "error_message": (step.error_message or "")[:MESSAGE_CHARS],
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cost_usd": None if cost is None or cost.nanos is None else cost.nanos / NANOS,
        "cost_source": "" if cost is None else cost.source,
        "input_bytes": _size(step.input, step.input_bytes),
        "output_bytes": _size(step.output, step.output_bytes),
        "documents": len(step.documents or ()),
    }


def _first_token(step: Step) -> int | None:
    first = step.first_token_time
    return None if first is None else first - step.start_time


def _size(text: str | None, given: int | None) -> int:
    return len((text or "").encode("utf-8", "replace")) if given is None else given


def alert_of(record: Kept) -> dict[str, Any] | None:
    """An alert as its record has it; None for a deleted or unreadable one."""
    try:
        found = msgspec.json.decode(record.value) if record.value else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
