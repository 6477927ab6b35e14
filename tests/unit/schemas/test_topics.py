"""Topics: names, keys and settings that the rest relies on."""

from __future__ import annotations

import re

import pytest

from stepstream.schemas.task_common import ID_MEMORY_US, MAX_DELAY_US
from stepstream.schemas.times import DAY_MS
from stepstream.schemas.topics import TOPIC_NAMES, TOPICS, topic, topic_specs

BY_NAME = {spec.name: spec for spec in TOPICS}


def test_topics_are_those_of_the_flow() -> None:
    """No topic comes or goes unnoticed: each is a public name."""
    names = (
        "steps trajectories state usage findings fleet alerts deliveries control config releases "
        "tasks taskstate bindings deadletter guardrails"
    )
    assert set(BY_NAME) == TOPIC_NAMES == set(names.split())
    assert len(TOPICS) == len(TOPIC_NAMES)


def test_names_carry_the_prefix() -> None:
    """Installations share a cluster by prefix.

    A wrong name is refused and the right ones are shown.
    """
    assert topic("acme.dev", "steps") == "acme.dev.steps"
    with pytest.raises(ValueError, match=r"no such topic: step .*steps"):
        topic("acme", "step")


@pytest.mark.parametrize("name", sorted(TOPIC_NAMES))
def test_names_are_legal_in_kafka(name: str) -> None:
    """Kafka's characters, and no underscore, which would collide with dots in metric names."""
    assert re.fullmatch(r"[a-z]+", name)


def test_steps_are_stamped_by_the_broker() -> None:
    """Time limits are compared with the append time, so the broker sets it."""
    assert BY_NAME["steps"].config["message.timestamp.type"] == "LogAppendTime"
    assert BY_NAME["steps"].config["retention.ms"] == str(7 * DAY_MS)


def test_a_task_that_waits_longest_is_still_in_its_topics() -> None:
    """The longest delay is shorter than the retention of the submit and of the state."""
    assert BY_NAME["tasks"].config["message.timestamp.type"] == "LogAppendTime"
    assert int(BY_NAME["tasks"].config["retention.ms"]) * 1000 > MAX_DELAY_US
    assert int(BY_NAME["taskstate"].config["retention.ms"]) * 1000 > ID_MEMORY_US + MAX_DELAY_US


def test_a_rejected_record_fits_the_dead_letter() -> None:
    """The dead letter takes the largest record of the steps topic, and its headers."""
    assert int(BY_NAME["deadletter"].config["max.message.bytes"]) >= 2 * int(
        BY_NAME["steps"].config["max.message.bytes"]
    )


def test_state_outlives_the_steps_it_stands_for() -> None:
    """State is kept twice as long as steps, and longer than any run may be open."""
    for retention_ms in (DAY_MS, 30 * DAY_MS):
        specs = {spec.name: spec for spec in topic_specs(steps_retention_ms=retention_ms)}
        assert specs["steps"].config["retention.ms"] == str(retention_ms)
        assert int(specs["state"].config["retention.ms"]) == max(3 * DAY_MS, 2 * retention_ms)


@pytest.mark.parametrize(
    "name", ["trajectories", "fleet", "alerts", "deliveries", "config", "releases"]
)
def test_what_is_looked_up_by_key_is_compacted(name: str) -> None:
    """Topics of which the newest record per key matters keep it."""
    assert "compact" in BY_NAME[name].config["cleanup.policy"]


@pytest.mark.parametrize(
    "name",
    [
        "steps",
        "state",
        "usage",
        "findings",
        "control",
        "tasks",
        "taskstate",
        "bindings",
        "deadletter",
    ],
)
def test_what_is_a_log_is_never_compacted(name: str) -> None:
    """Topics of which every record matters lose none to its key."""
    assert "compact" not in BY_NAME[name].config.get("cleanup.policy", "delete")


def test_stages_meet_on_equal_partitions() -> None:
    """State is partitioned as its steps and alerts as their findings: the counts are equal."""
    # The worker writes the state of a run to the partition number of its steps.
    assert BY_NAME["state"].partitioned == BY_NAME["steps"].partitioned == "steps"
    assert BY_NAME["alerts"].partitioned == BY_NAME["findings"].partitioned == "fleet"
    # A task's state is written to the partition number of its project, and the stage that decides
    # about tasks has its project's usage and findings in the same process.
    assert BY_NAME["tasks"].partitioned == BY_NAME["taskstate"].partitioned == "fleet"
    assert {spec.partitioned for spec in TOPICS} == {"steps", "fleet", "one"}
