"""The reader of the live stream uses Kafka for viewers only."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.common import kafka
from stepstream.console.live.tail import Tail
from stepstream.schemas.settings import Settings
from tests.support.console import NOWHERE
from tests.support.processes import wait_until


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups of the consumers that are made."""
    made: list[str] = []

    def consumer(_settings: Settings, group: str, **_more: Any) -> Any:
        made.append(group)
        raise kafka.KafkaUnreachable("no Kafka in this test")

    monkeypatch.setattr(kafka, "consumer", consumer)
    return made


def test_without_viewers_it_ends_without_asking_kafka(asked: list[str]) -> None:
    tail = Tail(Settings(**NOWHERE))

    tail.close()

    assert asked == []


def test_a_viewer_makes_it_ask_kafka(asked: list[str]) -> None:
    tail = Tail(Settings(**NOWHERE))

    tail.enter()
    wait_until(lambda: bool(asked), 60, "a consumer")
    tail.close()

    assert not tail.health.kafka_ok
