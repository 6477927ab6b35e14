"""The dead letter on a real broker: read, shown, and sent again as it came."""

from __future__ import annotations

import json

import pytest

from stepstream.admin import deadletter
from stepstream.admin.topics import create_topics
from stepstream.cli.app import run
from stepstream.common.kafka import producer, read_to_end
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
)


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A prefix of this test's own, with three refused records."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    settings = Settings(
        kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, partitions=2, fleet_partitions=1
    )
    create_topics(settings)
    client = producer(settings)
    came_from = [
        (f"{topic_prefix}.steps", "malformed_json"),
        (f"{topic_prefix}.steps", "missing_field"),
        ("other.steps", "x"),
    ]
    for number, (name, reason) in enumerate(came_from):
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", b"application/json"),
            (DEADLETTER_TOPIC, name.encode()),
            (DEADLETTER_PARTITION, b"1"),
            (DEADLETTER_OFFSET, str(100 + number).encode()),
            (DEADLETTER_REASON, reason.encode()),
            (DEADLETTER_DETAIL, b"what was wrong"),
            (DEADLETTER_BY, b"worker"),
        ]
        client.produce(
            f"{topic_prefix}.deadletter",
            key=b"key-%d" % number,
            value=b"value \xff %d" % number,
            headers=headers,
        )
    assert client.flush(10) == 0
    return settings


@pytest.fixture
def place(settings: Settings) -> list[str]:
    return ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]


def test_letters_contain_what_came_and_why_it_was_refused(settings: Settings) -> None:
    """Bytes as they came, with topic, partition, offset, reason, detail and who refused."""
    letters = list(deadletter.read(settings))
    assert [(one.offset, one.source_offset, one.reason) for one in letters] == [
        (0, 100, "malformed_json"),
        (1, 101, "missing_field"),
        (2, 102, "x"),
    ]
    first = letters[0]
    assert (first.topic, first.partition, first.by, first.detail) == (
        f"{settings.topic_prefix}.steps",
        1,
        "worker",
        "what was wrong",
    )
    assert (first.key, first.value) == (b"key-0", b"value \xff 0")
    assert first.headers == (("content-type", b"application/json"),)
    assert [one.offset for one in deadletter.read(settings, reason="missing_field")] == [1]
    assert list(deadletter.read(settings, since_ms=first.time_ms + 3_600_000)) == []


def test_letters_are_sent_again_as_they_came(settings: Settings) -> None:
    """Key, value and their own headers, and where they come from; another installation's stay."""
    sent, foreign = deadletter.replay(settings, deadletter.read(settings))
    assert (sent, [one.offset for one in foreign]) == (2, [2])
    again = sorted(
        read_to_end(settings, f"{settings.topic_prefix}.steps"),
        key=lambda message: message.key() or b"",
    )
    assert [(message.key(), message.value()) for message in again] == [
        (b"key-0", b"value \xff 0"),
        (b"key-1", b"value \xff 1"),
    ]
    # The headers of the letter are gone: the record is as it was sent, with where it comes from.
    assert again[1].headers() == [
        ("content-type", b"application/json"),
        ("stepstream-replayed-from", b"1"),
    ]


def test_the_dead_letter_on_the_command_line(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """List, show one, send again."""
    assert run(["deadletter", "list", *place, "--format", "json", "--limit", "2"]) == 0
    assert [row["reason"] for row in json.loads(capsys.readouterr().out)] == ["missing_field", "x"]
    assert run(["deadletter", "show", "1", *place]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["reason"], shown["key"], shown["value"]) == (
        "missing_field",
        "key-1",
        "value \\xff 1",
    )
    assert run(["deadletter", "show", "7", *place]) == 1
    assert "has no record with offset 7" in capsys.readouterr().err
    assert run(["deadletter", "replay", "--reason", "missing_feild", "--dry-run", *place]) == 1
    assert "did you mean missing_field?" in capsys.readouterr().err
    assert run(["deadletter", "replay", "--reason", "nope", "--dry-run", *place]) == 1
    assert "the reasons are: malformed_json, missing_field, x" in capsys.readouterr().err
    assert run(["deadletter", "replay", "--reason", "missing_field", "--dry-run", *place]) == 0
    assert capsys.readouterr().out == "1 record would be sent again\n"
    assert run(["deadletter", "replay", "1", "7", *place]) == 1
    assert (
        "nothing was sent: the dead-letter topic has no record with offset 7"
        in capsys.readouterr().err
    )
    assert run(["deadletter", "replay", "1", "2", *place]) == 0
    captured = capsys.readouterr()
    assert captured.out == "1 record sent again\n"
    assert "offset 2 came from other.steps and is not sent" in captured.err
