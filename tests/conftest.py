"""The engines that integration tests share: one broker and one store for the whole run, started by
the first test that needs one."""

from __future__ import annotations

import itertools
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a property must not fail because the machine is busy; pytest-timeout ends slow tests.
# A fixed seed: with a random one a property could fail on one machine and pass on the next.
# HYPOTHESIS_SEARCH=1 searches for new cases.
settings.register_profile(
    "stepstream",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("HYPOTHESIS_SEARCH"),
)
settings.load_profile("stepstream")

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--containers",
        action="store_true",
        default=False,
        help="run the integration tests against Docker images instead of the embedded engines",
    )
    parser.addoption(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="run the tests in an order that the seed decides; without it in that of the files",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--shuffle")
    if seed is not None:
        # Every process of xdist must collect the same order, so it depends on the seed alone.
        random.Random(seed).shuffle(items)
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.integration)
        # Ends tests that hang. Tests over engines take minutes on a busy machine.
        if "unit" not in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))
        shared = {"kafka_bootstrap", "clickhouse_url"} & set(getattr(item, "fixturenames", ()))
        if shared and not item.path.name.startswith("test_embedded"):
            item.add_marker(pytest.mark.containers)  # it runs over any Kafka and any ClickHouse


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The SDK of the tests has its spool in this run's own folder."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="session")
def engines_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run's engines keep their data."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest, engines_dir: Path) -> Iterator[str]:
    """Servers of a real Kafka that all tests share; ``topic_prefix`` makes names unique."""
    if request.config.getoption("--containers"):
        from tests.support.containers import kafka_container

        yield from kafka_container()
        return
    from stepstream.local.embedded.kafka import EmbeddedKafka

    with EmbeddedKafka(engines_dir / "kafka", heap_mb=384) as kafka:
        yield kafka.bootstrap


@pytest.fixture(scope="session")
def clickhouse_url(request: pytest.FixtureRequest, engines_dir: Path) -> Iterator[str]:
    """URL of a real ClickHouse engine with the login of its writer, shared by the whole run.

    Use ``clickhouse_database`` for a place of your own.
    """
    if request.config.getoption("--containers"):
        from tests.support.containers import clickhouse_container

        yield from clickhouse_container()
        return
    from stepstream.local.embedded.clickhouse import EmbeddedClickHouse

    with EmbeddedClickHouse(engines_dir / "clickhouse") as clickhouse:
        yield clickhouse.writer_url


def _unique() -> str:
    return f"{os.getpid()}_{next(_numbers)}_{uuid.uuid4().hex[:6]}"


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics and groups that no other test uses."""
    return f"t{_unique()}"


@pytest.fixture
def clickhouse_database(clickhouse_url: str) -> Iterator[str]:
    """An empty database of the test's own, dropped afterwards."""
    import clickhouse_connect

    name = f"t{_unique()}"
    client = clickhouse_connect.get_client(dsn=clickhouse_url)
    client.command(f"CREATE DATABASE {name}")
    yield name
    client.command(f"DROP DATABASE {name}")
    client.close()
