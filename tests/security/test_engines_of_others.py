"""An embedded engine is identified by its process, not by an answer at its port, and passwords are
sent to that process only."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
import pytest
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from stepstream.common import endpoints
from stepstream.common.listen import AddressTaken
from stepstream.local import service_ports
from stepstream.local.embedded import clickhouse as clickhouse_module
from stepstream.local.embedded import instance, ports
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.errors import PortTaken
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.local.supervisor import Pipeline, PipelineError
from stepstream.schemas.settings import Settings
from tests.security.squatters import Squatter


def report_all_ports_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another program binds the port between the check and the start."""
    monkeypatch.setattr(clickhouse_module, "is_free", lambda _port: True)


def answers(store: EmbeddedClickHouse) -> bool:
    with clickhouse_connect.get_client(dsn=store.reader_url) as client:
        return client.command("SELECT 1") == 1


def test_a_store_is_not_taken_for_ours_because_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a program has the chosen port, another port is chosen; the program gets no request."""
    report_all_ports_free(monkeypatch)
    with Squatter() as other, EmbeddedClickHouse(tmp_path, prefer_port=other.port) as store:
        assert store.url != f"http://127.0.0.1:{other.port}"
        assert answers(store)
        assert (other.connections, other.received) == (0, b"")


def test_a_configured_port_that_is_in_use_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the setting, and the program at that port gets no password."""
    report_all_ports_free(monkeypatch)
    with Squatter() as other:
        with pytest.raises(
            PortTaken, match=rf"port {other.port} .* set clickhouse_port \(--clickhouse-port\)"
        ):
            EmbeddedClickHouse(tmp_path, port=other.port).start()
        assert (other.connections, other.received) == (0, b"")


def test_after_a_crash_another_program_at_the_port_is_not_the_store(tmp_path: Path) -> None:
    """A restart keeps the port, so it waits until the other program has left, and then goes on."""
    with EmbeddedClickHouse(tmp_path) as store:
        port = int(store.url.rpartition(":")[2])
        store.kill()
        with Squatter(port) as other:
            with pytest.raises(PortTaken, match=f"port {port} "):
                store.restart()
            assert store.failed
            assert (other.connections, other.received) == (0, b"")
        store.restart()
        assert not store.failed
        assert answers(store)


def test_two_stores_that_start_at_the_same_moment_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both check the port before one of them listens: each gets a server and data of its own."""
    both_checked = threading.Barrier(2, timeout=30)
    real = ports.is_free
    checked = threading.local()

    def is_free(port: int) -> bool:
        free = real(port)
        if not getattr(checked, "once", False):
            checked.once = True
            # Both have found the port free when one of them takes it.
            both_checked.wait()
        return free

    monkeypatch.setattr(clickhouse_module, "is_free", is_free)
    with Squatter() as place:
        port = place.port
    stores = [EmbeddedClickHouse(tmp_path / name, prefer_port=port) for name in ("a", "b")]
    try:
        with ThreadPoolExecutor(2) as pool:
            urls = list(pool.map(lambda store: store.start(), stores))
        assert len(set(urls)) == 2
        for number, store in enumerate(stores):
            with clickhouse_connect.get_client(dsn=store.writer_url) as client:
                client.command(f"CREATE TABLE mine{number} (a Int8) ENGINE = Memory")
        for number, store in enumerate(stores):
            with clickhouse_connect.get_client(dsn=store.writer_url) as client:
                assert client.query("SHOW TABLES").result_rows == [(f"mine{number}",)]
        # Another store, other passwords.
        with pytest.raises(Exception, match="Authentication failed"):
            clickhouse_connect.get_client(dsn=stores[0].access.writer.url(stores[1].url))
    finally:
        for store in stores:
            store.stop()


def test_a_kafka_that_answers_first_is_not_ours(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster that has the port already is a real one and ready; it is known by its id, and
    left alone."""
    monkeypatch.setattr(instance, "plan", functools.partial(instance.plan, free=lambda _port: True))
    taken = int(kafka_bootstrap.rpartition(":")[2])
    others = (
        AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
        .list_topics(timeout=10)
        .cluster_id
    )
    with EmbeddedKafka(tmp_path / "kafka", prefer_port=taken, heap_mb=256) as kafka:
        assert kafka.bootstrap != kafka_bootstrap
        found = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0}).list_topics(
            timeout=10
        )
        # The address alone does not show whose cluster answers.
        assert found.cluster_id != others
    with pytest.raises(PortTaken, match=rf"port {taken} .* set kafka_port \(--kafka-port\)"):
        EmbeddedKafka(tmp_path / "set", port=taken, heap_mb=256).start()


@pytest.fixture
def settings(
    kafka_bootstrap: str,
    clickhouse_url: str,
    topic_prefix: str,
    clickhouse_database: str,
    tmp_path: Path,
) -> Settings:
    """A pipeline on shared engines, with a state folder of its own."""
    return Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=topic_prefix,
        clickhouse_database=clickhouse_database,
        state_dir=str(tmp_path / "state"),
    )


@pytest.fixture
def squatted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Report ports as free that other programs use."""

    def report_free(*taken: int) -> None:
        real = service_ports.ServicePorts
        monkeypatch.setattr(
            service_ports,
            "USUAL",
            service_ports.USUAL | dict(zip(service_ports.USUAL, taken, strict=False)),
        )
        monkeypatch.setattr(
            "stepstream.local.supervisor.ServicePorts",
            functools.partial(real, free=lambda _port: True),
        )

    return report_free


@pytest.mark.timeout(600)
def test_ports_of_our_processes_are_chosen_again(
    settings: Settings, squatted: Callable[..., None]
) -> None:
    """The notifier's API and the metrics of worker and sink are taken by others; the address file
    names the real ones."""
    logged: list[tuple[str, str]] = []
    with Squatter() as api, Squatter() as worker, Squatter() as sink:
        squatted(api.port, worker.port, sink.port)
        with Pipeline(
            settings, report=lambda who, line: logged.append((who, line)), usual_ports=True
        ) as pipeline:
            found = endpoints.read(Path(settings.state_dir))
            assert found is not None
            assert found.others == {
                "notify": pipeline.admin_url,
                "gateway": pipeline.gateway_url,
                "console": pipeline.console_url,
            } | {f"metrics_{part}": url for part, url in pipeline.metrics_urls.items()}
            used = {
                int(url.removesuffix("/metrics").rpartition(":")[2])
                for url in found.others.values()
            }
            assert len(used) == 6
            assert not used & {api.port, worker.port, sink.port}
            assert all(process.restarts == 0 for process in pipeline.status().processes)
        assert b"" == api.received == worker.received == sink.received
    # The gateway's usual port may be in use by another pipeline of the test run.
    moved = {who for who, line in logged if "another port is chosen" in line}
    assert moved - {"gateway", "console"} == {"notify", "sink", "worker"}
    assert not any("Traceback" in line for _, line in logged)


@pytest.mark.timeout(600)
def test_a_configured_port_of_a_process_that_is_in_use_is_one_error(
    settings: Settings, squatted: Callable[..., None]
) -> None:
    """Before any process starts where the check finds it, else when the process reports it: without
    a traceback and without endless restarts."""
    logged: list[str] = []
    with Squatter() as api:
        own = settings.model_copy(update={"notify_port": api.port})
        with pytest.raises(
            AddressTaken,
            match=rf"^port {api.port} .*set notify_port \(--notify-port\) to another port",
        ):
            Pipeline(own).start()
        # From here on the check finds every port free, as in a race.
        squatted()
        late = Pipeline(own, report=lambda _who, line: logged.append(line))
        with pytest.raises(
            PipelineError,
            match=rf"^port {api.port} .*set notify_port \(--notify-port\) to another port",
        ):
            late.start()
        assert api.received == b""
    assert not any("Traceback" in line for line in logged)


@pytest.mark.timeout(300)
def test_two_pipelines_that_start_at_the_same_moment(settings: Settings, tmp_path: Path) -> None:
    """Each has its own store, API and metrics, and its own passwords."""
    pipelines = [
        Pipeline(
            settings.model_copy(
                update={
                    "clickhouse_url": "",
                    "clickhouse_password": SecretStr(""),
                    "clickhouse_database": "stepstream",
                    "topic_prefix": f"{settings.topic_prefix}{name}",
                    "state_dir": str(tmp_path / name),
                }
            ),
            usual_ports=True,
        )
        for name in ("a", "b")
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Pipeline.start, pipelines))
        found = [endpoints.read(tmp_path / name) for name in ("a", "b")]
        one, other = (each for each in found if each is not None)
        assert one.clickhouse != other.clickhouse
        assert not set(one.others.values()) & set(other.others.values())
        assert one.writer.password != other.writer.password
        for pipeline in pipelines:
            assert pipeline.status().healthy
    finally:
        for pipeline in pipelines:
            pipeline.stop(drain_s=5)
