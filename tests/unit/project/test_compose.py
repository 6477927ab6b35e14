"""docker-compose.yml and Dockerfile agree with the code that they run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from stepstream.common.settings import load
from stepstream.local.embedded.fetch import KAFKA_VERSION
from stepstream.schemas.topics import topic_specs
from stepstream.sinks.clickhouse.client import login
from tests.support.paths import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def default(text: str) -> str:
    """A value as compose fills it in where nothing but what has to be set is set."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", r"set-\1", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


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
    given = {
        name: default(str(value))
        for name, value in COMPOSE["services"][service]["environment"].items()
    }
    settings = load(environ={**given, "STEPSTREAM_STATE_DIR": str(tmp_path)})
    assert settings.kafka_brokers == "kafka:19092"
    assert settings.clickhouse_url == "http://clickhouse:8123"
    assert login(settings, readonly=False) == ("stepstream", "set-CLICKHOUSE_PASSWORD")
    assert login(settings, readonly=True) == ("reader", "set-CLICKHOUSE_READER_PASSWORD")
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9464)
    folder = Path(settings.credentials_file).parent
    assert f"credentials:{folder}" in COMPOSE["services"][service]["volumes"]
    assert COMPOSE["services"][service]["image"] == f"stepstream:{PROJECT['version']}"


def test_ports_are_for_this_machine_alone() -> None:
    """Kafka and ClickHouse listen without TLS: they must not be reachable from outside."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_no_password_has_a_default() -> None:
    """No password is in the repository; without one the error explains what to set and how."""
    values = {
        f"{service}.{name}": str(value)
        for service, definition in COMPOSE["services"].items()
        for name, value in definition.get("environment", {}).items()
        if "PASSWORD" in name
    }
    assert {name for name in values if name.startswith("clickhouse.")} == {
        "clickhouse.CLICKHOUSE_PASSWORD",
        "clickhouse.CLICKHOUSE_READER_PASSWORD",
    }
    # `:?` makes docker compose stop with the text behind it.
    for value in values.values():
        assert re.fullmatch(
            r"\$\{CLICKHOUSE_(READER_)?PASSWORD:\?[^}]*openssl rand -hex 32\}", value
        )
    assert (
        "CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT"
        not in COMPOSE["services"]["clickhouse"]["environment"]
    )


def test_metrics_can_be_scraped_with_a_token_that_setup_makes() -> None:
    """Other machines get metrics with credentials only, from a volume that the image can write."""
    script = COMPOSE["services"]["setup"]["entrypoint"][-1]
    assert "stepstream credentials add prometheus --scope read > /data/prometheus.token" in script
    assert "credentials" in COMPOSE["volumes"]
    assert "mkdir /data && chown stepstream /data" in (ROOT / "Dockerfile").read_text()


def test_the_reader_of_the_server_reads_only() -> None:
    """Its configuration is mounted, bounds its queries, and takes the password from compose."""
    mounted = [
        str(volume).partition(":")[0] for volume in COMPOSE["services"]["clickhouse"]["volumes"]
    ]
    assert all((ROOT / place).is_file() for place in mounted if place.startswith("./"))
    tree = ElementTree.parse(ROOT / "deploy" / "clickhouse" / "users.d" / "reader.xml")
    assert tree.findtext("profiles/reader/readonly") == "1"
    assert {"max_execution_time", "max_memory_usage", "max_result_bytes"} <= {
        one.tag for one in tree.find("profiles/reader") or []
    }
    password = tree.find("users/reader/password")
    assert password is not None
    assert password.get("from_env") in COMPOSE["services"]["clickhouse"]["environment"]
    assert [one.text for one in tree.iterfind("users/reader/grants/query")] == [
        "GRANT SELECT ON stepstream.*"
    ]
    assert tree.findtext("users/reader/access_management") is None


def test_the_image_is_built_from_the_rooms_that_the_wheel_packs() -> None:
    """What is copied is what is allowed into the build, and every extra exists."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for word in line.split()
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    extras = set(re.findall(r"EXTRAS=([\w,]+)", dockerfile))
    assert {extra for group in extras for extra in group.split(",")} <= PROJECT[
        "optional-dependencies"
    ].keys()


def test_clickhouse_logs_about_itself_expire() -> None:
    """Each section sets an end or switches the log off."""
    tree = ElementTree.parse(ROOT / "deploy" / "clickhouse" / "config.d" / "system-logs.xml")
    sections = list(tree.getroot())
    assert {
        "query_log",
        "trace_log",
        "metric_log",
        "asynchronous_metric_log",
        "text_log",
        "part_log",
    } <= {one.tag for one in sections}
    assert all(
        "INTERVAL" in (one.findtext("ttl") or "") or one.get("remove") == "1" for one in sections
    )
