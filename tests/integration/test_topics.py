"""Topics on a real broker: made where missing, compared where present, never changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.cimpl import NewTopic

from stepstream.admin import topics
from stepstream.admin.topics import TopicReport, TopicsError, create_topics, list_topics
from stepstream.cli.app import run
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import TOPIC_NAMES


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """A prefix of this test's own on the shared broker."""
    return Settings(
        kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, partitions=3, fleet_partitions=2
    )


def by_name(reports: list[TopicReport]) -> dict[str, TopicReport]:
    """Reports by the topic's name without prefix."""
    return {report.name.rpartition(".")[2]: report for report in reports}


def make(settings: Settings, name: str, partitions: int, **config: str) -> None:
    """A topic that another program made."""
    wanted = NewTopic(f"{settings.topic_prefix}.{name}", partitions, 1, config=config)
    client = topics.admin(settings)
    for future in client.create_topics([wanted]).values():
        future.result()


def test_topics_are_made_once_and_as_wanted(settings: Settings) -> None:
    """Every topic with its partitions and settings; a second run finds nothing to do."""
    assert {report.state for report in list_topics(settings)} == {"missing"}
    made = by_name(create_topics(settings))
    assert set(made) == TOPIC_NAMES
    assert {report.state for report in made.values()} == {"created"}
    assert {
        name: made[name].partitions
        for name in ("steps", "trajectories", "state", "findings", "alerts", "config")
    } == {
        "steps": 3,
        "trajectories": 3,
        "state": 3,
        "findings": 2,
        "alerts": 2,
        "config": 1,
    }
    again = create_topics(settings)
    assert {report.state for report in again} == {"exists"}
    assert again == list_topics(settings)


def test_several_processes_may_make_them_at_once(settings: Settings) -> None:
    """The second process takes what is there; all of them see every topic when they return."""
    # As worker, sink, notifier and gateway do when a pipeline starts.
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: create_topics(settings), range(4)))
    for reports in answers:
        assert {report.state for report in reports} <= {"created", "exists"}
        assert all(report.partitions for report in reports)


def test_another_partition_count_of_the_steps_is_refused_and_explained(settings: Settings) -> None:
    """Keys would move and split runs: nothing is changed, and the error names the procedure."""
    create_topics(settings)
    # Kafka itself would add partitions without a warning.
    wanted = settings.model_copy(update={"partitions": 6})
    steps = by_name(create_topics(wanted))["steps"]
    assert (steps.state, steps.partitions) == ("differs", 3)
    assert steps.differences == ("3 partitions, the setting partitions is 6",)
    assert "never changes in place" in steps.refused
    assert "partitions = 6" in steps.refused
    assert by_name(list_topics(settings))["steps"].partitions == 3


def test_what_follows_the_steps_has_the_count_that_the_steps_really_have(
    settings: Settings,
) -> None:
    """State lies on the partition of its steps, whatever the settings are by now."""
    make(settings, "steps", 5, **{"message.timestamp.type": "LogAppendTime"})
    make(settings, "findings", 4)
    made = by_name(create_topics(settings))
    assert (made["state"].partitions, made["trajectories"].partitions) == (5, 5)
    assert (made["alerts"].partitions, made["usage"].partitions) == (4, 4)
    assert made["findings"].differences[0] == "4 partitions, the setting fleet_partitions is 2"


def test_every_difference_of_an_existing_topic_is_reported_and_none_changed(
    settings: Settings,
) -> None:
    """Clean-up, times and sizes that an administrator set otherwise stay as they are."""
    make(settings, "trajectories", 1, **{"cleanup.policy": "delete"})
    create_topics(settings)
    report = by_name(create_topics(settings))["trajectories"]
    assert report.state == "differs"
    assert "cleanup.policy is delete, wanted compact,delete" in report.differences
    assert "1 partitions, wanted 3 (as " in "; ".join(report.differences)
    assert by_name(list_topics(settings))["trajectories"] == report


def test_the_order_of_a_list_is_no_difference(settings: Settings) -> None:
    """compact,delete is delete,compact."""
    make(
        settings,
        "deliveries",
        2,
        **{"cleanup.policy": "delete,compact", "retention.ms": str(30 * 86_400_000)},
    )
    assert by_name(create_topics(settings))["deliveries"].differences == ()


def test_more_replicas_than_brokers_is_reported_as_such(settings: Settings) -> None:
    """The broker's own words name neither the setting nor the way out."""
    with pytest.raises(
        TopicsError, match="replication_factor is 3 and the cluster has fewer brokers"
    ):
        create_topics(settings.model_copy(update={"replication_factor": 3}))
    with pytest.raises(TopicsError, match="no record could ever be acknowledged"):
        create_topics(settings.model_copy(update={"min_insync_replicas": 2}))


def test_topics_on_the_command_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags a place is missing; the exit code is 1 only where something asked for is refused."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    place = ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]
    assert run(["topics", "create", *place, "--partitions", "2"]) == 0
    assert f"{settings.topic_prefix}.steps" in capsys.readouterr().out
    assert (
        run(["topics", "list", *place, "--partitions", "2", "--steps-topic-retention", "1h"]) == 0
    )
    assert "retention.ms is 604800000, wanted 3600000" in capsys.readouterr().out
    assert run(["topics", "create", *place, "--partitions", "3"]) == 1
    assert "never changes in place" in capsys.readouterr().err
