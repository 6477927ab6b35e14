"""The shared engines from the Docker images of docker-compose.yml, for ``pytest --containers``."""

from __future__ import annotations

import gc
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.processes import wait_until

COMPOSE: Final = ROOT / "docker-compose.yml"

START_S: Final = 90
KAFKA_PORT: Final = 9092


def kafka_container() -> Iterator[str]:
    """Bootstrap servers of Kafka in a container."""
    from confluent_kafka.admin import AdminClient

    # A client on this machine must find the mapped port in the advertised listeners, and that port
    # is known only once the container runs: the container waits for a file that contains it.
    with _running("kafka", _prepared_kafka) as container:
        bootstrap = f"{container.get_container_host_ip()}:{container.get_exposed_port(KAFKA_PORT)}"
        listeners = f"HOST://{bootstrap},INSIDE://localhost:19092"
        start = f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n"
        container.copy_into_container(start.encode(), "/tmp/start")
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        _wait_for_answer(
            lambda: bool(admin.list_topics(timeout=2).brokers), f"Kafka at {bootstrap}"
        )
        yield bootstrap


def clickhouse_container() -> Iterator[str]:
    """URL of a ClickHouse server in a container; user default, no password."""
    with _running("clickhouse", _prepared_clickhouse) as container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8123)}"
        _wait_for_answer(
            lambda: urllib.request.urlopen(f"{url}/ping", timeout=2).status == 200,
            f"ClickHouse at {url}",
        )
        yield url


def image_of(service: str) -> str:
    """The image that docker-compose.yml runs a service from."""
    return str(yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][service]["image"])


def _prepared_kafka(container: Any) -> Any:
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": f"HOST://:{KAFKA_PORT},INSIDE://localhost:19092,"
        "CONTROLLER://localhost:9093",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,INSIDE:PLAINTEXT,"
        "CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        # Three seconds by default, for every consumer group of every test.
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        # 90 days, as docker-compose.yml has: a week by default, in which a stopped sink loses its
        # place.
        "KAFKA_OFFSETS_RETENTION_MINUTES": "129600",
    }
    wait = "until [ -s /tmp/start ]; do sleep 0.1; done; . /tmp/start"
    return (
        container.with_exposed_ports(KAFKA_PORT)
        .with_envs(**settings)
        .with_command(["bash", "-c", wait])
    )


def _prepared_clickhouse(container: Any) -> Any:
    return container.with_exposed_ports(8123).with_env("CLICKHOUSE_SKIP_USER_SETUP", "1")


@contextmanager
def _running(service: str, prepare: Any) -> Iterator[Any]:
    """A started container of a service; skips with the reason where no engine or image exists."""
    import docker.errors
    from testcontainers.core.container import DockerContainer

    image = image_of(service)
    with warnings.catch_warnings():
        # The client leaves a socket behind where no engine answers.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            container = prepare(DockerContainer(image))
        except docker.errors.DockerException as error:
            absent = str(error)
        else:
            absent = ""
        gc.collect()
    if absent:
        pytest.skip(f"no Docker engine answers: {absent}")
    try:
        container.start()
        yield container
    except docker.errors.APIError as error:
        pytest.skip(f"Docker does not start {image}: {error.explanation or error}")
    finally:
        container.stop()
        # Its sockets would be warnings, which are errors in these tests.
        container.get_docker_client().client.close()


def _wait_for_answer(ready: Any, what: str) -> None:
    last: list[Exception] = []

    def answers() -> bool:
        try:
            return bool(ready())
        except Exception as error:  # whatever a client raises while the server starts
            last[:] = [error]
            return False

    wait_until(answers, START_S, what, every_s=0.3, instead=lambda: last)
