"""docker-compose.yml and Dockerfile agree with the code that they run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from stepstream.embedded.jars import KAFKA_VERSION
from stepstream.schemas.topics import topic_specs
from stepstream.settings import load

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def default(text: str) -> str:
    """A value as compose fills it in where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_broker_is_the_version_that_up_and_the_tests_run() -> None:
    """What people try on a laptop is what they run in containers."""
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_committed_offsets_outlive_every_topic() -> None:
    """Or a worker that was off for long would begin again, or skip."""
    minutes = int(COMPOSE["services"]["kafka"]["environment"]["KAFKA_OFFSETS_RETENTION_MINUTES"])
    longest_ms = max(int(spec.config.get("retention.ms", 0)) for spec in topic_specs())
    assert minutes * 60_000 > longest_ms


@pytest.mark.parametrize("service", ["setup", "worker", "sink", "notify"])
def test_our_processes_are_given_settings_that_exist(service: str, tmp_path: Path) -> None:
    """An unknown variable would keep a container from starting."""
    held = {name: default(str(value)) for name, value in COMPOSE["services"][service]["environment"].items()}
    settings = load(environ={**held, "STEPSTREAM_STATE_DIR": str(tmp_path)})
    assert settings.kafka_brokers == "kafka:19092"
    assert settings.clickhouse_url == "http://clickhouse:8123"
    assert COMPOSE["services"][service]["image"] == f"stepstream:{PROJECT['version']}"


def test_ports_are_for_this_machine_alone() -> None:
    """Kafka and ClickHouse listen without TLS: nobody outside is to reach them by accident."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_the_image_is_built_from_the_rooms_that_the_wheel_packs() -> None:
    """What is copied is what is allowed into the build, and every extra exists."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE) for word in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    extras = set(re.findall(r"EXTRAS=([\w,]+)", dockerfile))
    assert {extra for group in extras for extra in group.split(",")} <= PROJECT["optional-dependencies"].keys()


def test_clickhouse_logs_about_itself_expire() -> None:
    """Each section sets an end or switches the log off."""
    tree = ElementTree.parse(ROOT / "deploy" / "clickhouse" / "config.d" / "system-logs.xml")
    sections = list(tree.getroot())
    assert {"query_log", "trace_log", "metric_log", "asynchronous_metric_log", "text_log", "part_log"} <= {
        one.tag for one in sections
    }
    assert all("INTERVAL" in (one.findtext("ttl") or "") or one.get("remove") == "1" for one in sections)
