"""The shared engines from Docker images, for ``pytest --containers``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def kafka_container() -> Iterator[str]:
    """Bootstrap servers of Kafka in a container."""
    pytest.skip("no Kafka container is set up")
    yield ""


def clickhouse_container() -> Iterator[str]:
    """URL of ClickHouse in a container."""
    pytest.skip("no ClickHouse container is set up")
    yield ""
