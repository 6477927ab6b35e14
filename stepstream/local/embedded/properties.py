"""Kafka's settings for one machine: small, quick to start, and with long retention of offsets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepstream.common.login import Login

MIB = 1 << 20
# Above every topic's retention (40 days at most), so that a consumer that was off as long finds its
# committed offset again.
OFFSETS_RETENTION_DAYS = 90


@dataclass(frozen=True)
class Node:
    """One broker and controller of the cluster; ``index`` counts from 0, Kafka's own id from 1."""

    index: int
    broker_port: int
    controller_port: int

    @property
    def id(self) -> int:
        return self.index + 1

    def data(self, folder: Path) -> Path:
        return folder / f"node{self.index}"


def broker_properties(
    node: Node, nodes: list[Node], folder: Path, login: Login | None = None
) -> dict[str, str]:
    """The settings of one node; ports are here alone, never in the data, so that they may change
    between starts.

    With a login the broker asks every client for it, and every other node too.
    """
    return {
        **_place(node, nodes, folder, "SASL_PLAINTEXT" if login else "PLAINTEXT"),
        **(_sasl(login) if login else {}),
        **_replication(len(nodes)),
        **_keeping(),
        **_sizes(),
        **_timing(),
    }


def _place(node: Node, nodes: list[Node], folder: Path, protocol: str) -> dict[str, str]:
    listener = f"{protocol}://127.0.0.1:{node.broker_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(
            f"{other.id}@127.0.0.1:{other.controller_port}" for other in nodes
        ),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listener},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": listener,
        "listener.security.protocol.map": f"CONTROLLER:{protocol},{protocol}:{protocol}",
        "log.dirs": node.data(folder).as_posix(),
        "auto.create.topics.enable": "false",
    }


def _sasl(login: Login) -> dict[str, str]:
    """One user, for clients, brokers and controllers.

    PLAIN needs no tool besides the broker; all stays on loopback.
    """
    user, password = _quoted(login.user), _quoted(login.password)
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    jaas = f"{module} required username={user} password={password} user_{login.user}={password};"
    return {
        "security.inter.broker.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": jaas,
        "listener.name.controller.plain.sasl.jaas.config": jaas,
    }


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _replication(nodes: int) -> dict[str, str]:
    copies, in_sync = str(min(3, nodes)), str(max(1, min(3, nodes) - 1))
    return {
        "default.replication.factor": copies,
        # With three nodes one may be down and acknowledged records still survive a second loss.
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        # 50 by default: each is a folder and open files, and a handful of groups uses few of them.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
    }


def _keeping() -> dict[str, str]:
    return {
        "offsets.retention.minutes": str(OFFSETS_RETENTION_DAYS * 24 * 60),
        # After a long sleep much is past its retention at once: consumers get this long to read
        # what they had not.
        "log.initial.task.delay.ms": "120000",
        # What a power cut may take; a killed process loses nothing, its writes are with the
        # operating system.
        "log.flush.interval.ms": "1000",
        "log.flush.scheduler.interval.ms": "1000",
    }


def _sizes() -> dict[str, str]:
    return {
        # Only closed segments are deleted: smaller ones than 1 GiB give disk space back sooner.
        "log.segment.bytes": str(128 * MIB),
        "log.index.size.max.bytes": str(2 * MIB),
        "log.cleaner.dedupe.buffer.size": str(16 * MIB),
        # Threads for one machine: the defaults (3, 8, 10) cost memory and idle wake-ups.
        "num.network.threads": "2",
        "num.io.threads": "2",
        "background.threads": "2",
        "num.recovery.threads.per.data.dir": "2",
        "metadata.log.segment.bytes": str(16 * MIB),
        "metadata.max.retention.bytes": str(32 * MIB),
    }


def _timing() -> dict[str, str]:
    return {
        # 3 s by default, for groups whose members start one by one; here they start together.
        "group.initial.rebalance.delay.ms": "0",
        # After kill -9 the old registration blocks the new one until its session ends: 9 s by
        # default.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "400",
        "metadata.max.idle.interval.ms": "5000",
        "controlled.shutdown.max.retries": "1",
    }


def render(properties: dict[str, str]) -> str:
    """As a Java properties file."""
    return "".join(f"{name}={_escape(value)}\n" for name, value in properties.items())


def _escape(value: str) -> str:
    # Java reads properties files as Latin-1 with escapes of UTF-16 units.
    units = value.replace("\\", "\\\\").encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def log4j_properties(log: Path) -> str:
    """Kafka's own log: one file and two older ones, 4 MB each."""
    return render(
        {
            "status": "error",
            "appender.file.type": "RollingFile",
            "appender.file.name": "file",
            "appender.file.fileName": log.as_posix(),
            "appender.file.filePattern": f"{log.as_posix()}.%i",
            "appender.file.layout.type": "PatternLayout",
            "appender.file.layout.pattern": "%d{ISO8601} %p %m (%c)%n",
            "appender.file.policies.type": "Policies",
            "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
            "appender.file.policies.size.size": "4MB",
            "appender.file.strategy.type": "DefaultRolloverStrategy",
            "appender.file.strategy.max": "2",
            "rootLogger.level": "info",
            "rootLogger.appenderRef.file.ref": "file",
            "logger.config.name": "org.apache.kafka.common.config.AbstractConfig",
            # It logs every setting at each start: a thousand lines.
            "logger.config.level": "warn",
        }
    )
