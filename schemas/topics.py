"""The Kafka topics: names, keys, retention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.times import DAY_MS, HOUR_MS

STEP_RECORD_BYTES: Final = 5 * 1_048_576
"""The largest record of ``steps``: an input and an output of 1 MB each, with JSON's escapes."""

LETTER_BYTES: Final = 2 * STEP_RECORD_BYTES
"""The largest dead letter: the rejected record as it came, with the reason in its headers."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic: its name without prefix, its key, its settings."""

    name: str
    key: str
    value: str
    config: dict[str, str] = field(default_factory=dict)
    partitioned: str = "steps"
    """``steps``: as many partitions as the steps topic; ``fleet``: as many as findings; ``one``:
    one.
    """


def topic_specs(*, steps_retention_ms: int = 7 * DAY_MS) -> tuple[TopicSpec, ...]:
    """All topics of an installation, steps kept for ``steps_retention_ms``."""
    keep = {"retention.ms": str(steps_retention_ms)}
    compacted = {"cleanup.policy": "compact"}
    both = {"cleanup.policy": "compact,delete", "retention.ms": str(30 * DAY_MS)}
    return (
        TopicSpec(
            "steps",
            "trace_id",
            "StepEvent",
            {
                **keep,
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(STEP_RECORD_BYTES),
            },
        ),
        TopicSpec(
            "trajectories",
            "trace_id",
            "Trajectory",
            {**both, "min.compaction.lag.ms": str(7 * DAY_MS)},
        ),
        TopicSpec(
            "state",
            "trace_id, on the partition of its steps",
            "state of the assemble stage",
            {
                # Not compacted: compaction keeps the last record of a run, and that may come from a
                # worker that was replaced, and which knows less.
                "cleanup.policy": "delete",
                "retention.ms": str(max(3 * DAY_MS, 2 * steps_retention_ms)),
                "segment.ms": str(HOUR_MS),
                "segment.bytes": str(64 * 1_048_576),
                "max.message.bytes": str(8 * 1_048_576),
            },
        ),
        TopicSpec("usage", "project", "Usage", {"retention.ms": str(7 * DAY_MS)}, "fleet"),
        TopicSpec("findings", "project", "Finding", {"retention.ms": str(30 * DAY_MS)}, "fleet"),
        TopicSpec(
            "fleet",
            "project|what",
            "windows, budgets and baselines",
            {
                **both,
                "retention.ms": str(40 * DAY_MS),  # a month and what the windows compare it with
                "segment.ms": str(6 * HOUR_MS),  # parts of hours and old checkpoints go soon
                "max.message.bytes": str(8 * 1_048_576),
            },
            "fleet",
        ),
        TopicSpec(
            "alerts",
            "alert_id, on the partition of its findings",
            "Alert",
            {**both, "min.compaction.lag.ms": str(7 * DAY_MS)},
            "fleet",
        ),
        TopicSpec(
            "deliveries",
            "subscription|alert, on the partition of its alert",
            "Delivery",
            both,
            "fleet",
        ),
        TopicSpec(
            "control", "trace_id or project", "Command", {"retention.ms": str(DAY_MS)}, "fleet"
        ),
        TopicSpec(
            "tasks",
            "project",
            "submits and commands, and what executors report",
            {
                # Leases and deadlines are compared with the append time, so the broker sets it.
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(7 * DAY_MS),
            },
            "fleet",
        ),
        TopicSpec(
            "taskstate",
            "task_id or executor_id, on the partition of its project's tasks",
            "state of a task or an executor after each change",
            {
                # Not compacted: the last record of a key may come from a worker that was replaced.
                # The worker writes the record of a task that goes on again before it is too old.
                "cleanup.policy": "delete",
                "retention.ms": str(14 * DAY_MS),
                "segment.bytes": str(64 * 1_048_576),
                "max.message.bytes": str(4 * 1_048_576),
            },
            "fleet",
        ),
        TopicSpec(
            "bindings",
            "executor_id",
            "attempts for an executor",
            {
                "retention.ms": str(HOUR_MS),
                "segment.ms": str(HOUR_MS),
                "segment.bytes": str(16 * 1_048_576),
                "max.message.bytes": str(4 * 1_048_576),
            },
            "fleet",
        ),
        TopicSpec("config", "kind/name", "a document", compacted, "one"),
        # Not on config: agents read releases, and need no right on policies and subscriptions.
        TopicSpec(
            "releases",
            "kind/agent@hash, kind/agent/id",
            "Release, labels, Promotion, Decision",
            compacted,
            "one",
        ),
        # Not on config, for the same reason.
        TopicSpec("guardrails", "policy/name", "the guardrails of a policy", compacted, "one"),
        TopicSpec(
            "deadletter",
            "the original key",
            "the record as it came, with topic, partition, offset and reason",
            {"retention.ms": str(30 * DAY_MS), "max.message.bytes": str(LETTER_BYTES)},
            "one",
        ),
    )


TOPICS: Final[tuple[TopicSpec, ...]] = topic_specs()
TOPIC_NAMES: Final[frozenset[str]] = frozenset(spec.name for spec in TOPICS)


def topic(prefix: str, name: str) -> str:
    """The full name of a topic: ``topic("stepstream", "steps")`` is ``stepstream.steps``."""
    if name not in TOPIC_NAMES:
        raise ValueError(f"no such topic: {name} (one of {', '.join(sorted(TOPIC_NAMES))})")
    return f"{prefix}.{name}"


# Headers of a dead-lettered record; its key and value are those of the record as it came.
DEADLETTER_TOPIC: Final = "stepstream-topic"
DEADLETTER_PARTITION: Final = "stepstream-partition"
DEADLETTER_OFFSET: Final = "stepstream-offset"
DEADLETTER_REASON: Final = "stepstream-reason"
DEADLETTER_DETAIL: Final = "stepstream-detail"
DEADLETTER_BY: Final = "stepstream-by"
