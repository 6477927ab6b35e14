"""Fixtures of tests that need topics and no more; a module with other needs has its own."""

from __future__ import annotations

import pytest

from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.schemas.settings import Settings
from tests.support.processes import PATIENCE


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """A prefix of the test's own on the shared broker, with its topics of one partition."""
    settings = Settings(
        kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, partitions=1, fleet_partitions=1
    )
    create_topics(settings, timeout=TIMEOUT_S * PATIENCE)
    return settings


@pytest.fixture
def place(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags that lead a command to the test's topics."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    return ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]
