"""Kafka and ClickHouse for one machine: the servers that the settings name, or embedded ones."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from stepstream.common.settings import data_dir
from stepstream.local.embedded.errors import LocalError
from stepstream.local.processes.restarts import RestartPauses
from stepstream.local.processes.supervised import Report
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.local.embedded.access import Access
    from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
    from stepstream.local.embedded.disk import DiskGuard
    from stepstream.local.embedded.kafka import EmbeddedKafka

KAFKA_PORT: Final = 9092
CLICKHOUSE_PORT: Final = 8123
WRITER: Final = "default"


@dataclass
class _RestartState:
    """When an engine was last started, and when it is to be started again after it ended by
    itself."""

    since_s: float
    due_s: float | None = None
    pauses: RestartPauses = field(default_factory=RestartPauses)


class Engines:
    """Starts, restarts and stops the embedded engines. An engine whose address is set is not
    started.

    ``usual_ports``: a new data folder gets 9092 and 8123 where they are free and no port is set,
    otherwise any free ones. Ports stay the same from start to start where possible.
    """

    def __init__(self, settings: Settings, report: Report, *, usual_ports: bool) -> None:
        self._settings = settings
        self._report = report
        self._usual_ports = usual_ports
        self._folder = data_dir(settings)
        self._access: Access | None = None
        self._guard = threading.Lock()
        self._kafka: EmbeddedKafka | None = None
        self._clickhouse: EmbeddedClickHouse | None = None
        self._restarts: dict[str, _RestartState] = {}
        self._disk: DiskGuard | None = None

    @property
    def access(self) -> Access:
        """The users of this data folder, made at its first start."""
        from stepstream.local.embedded.access import prepare

        with self._guard:
            if self._access is None:
                settings = self._settings
                password = (
                    ""
                    if settings.clickhouse_url
                    else settings.clickhouse_password.get_secret_value()
                )
                user = WRITER if settings.clickhouse_url else settings.clickhouse_user
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._access = prepare(self._folder, writer_user=user, writer_password=password)
            return self._access

    def start_kafka(self) -> dict[str, Any]:
        """Start Kafka; the settings to use it: the address, and the user where it requires one."""
        if self._settings.kafka_brokers:
            return {}
        from stepstream.local.embedded.kafka import EmbeddedKafka

        jars = self._settings.kafka_jars_dir
        kafka = EmbeddedKafka(
            self._folder / "kafka",
            port=self._settings.kafka_port,
            prefer_port=KAFKA_PORT if self._usual_ports else 0,
            heap_mb=self._settings.kafka_heap_mb,
            jars_dir=Path(jars).expanduser() if jars else None,
            login=self.access.kafka if self._settings.kafka_auth else None,
            log=lambda line: self._report("kafka", line),
        )
        found: dict[str, Any] = {"kafka_brokers": kafka.start(), "endpoint": ""}
        if self._settings.kafka_auth:
            login = self.access.kafka
            found |= {
                "kafka_sasl_mechanism": "PLAIN",
                "kafka_sasl_username": login.user,
                "kafka_sasl_password": SecretStr(login.password),
            }
        self._kafka = kafka
        self._disk = kafka.disk_guard()
        self._restarts["kafka"] = _RestartState(time.monotonic())
        return found

    def start_clickhouse(self) -> dict[str, Any]:
        """Start the store; the settings to use it: the URL, and the users that write and read."""
        if self._settings.clickhouse_url:
            return {}
        from stepstream.local.embedded.clickhouse import EmbeddedClickHouse

        clickhouse = EmbeddedClickHouse(
            self._folder / "clickhouse",
            port=self._settings.clickhouse_port,
            prefer_port=CLICKHOUSE_PORT if self._usual_ports else 0,
            access=self.access,
            low_priority=True,
            log=lambda line: self._report("clickhouse", line),
        )
        address = clickhouse.start()
        self._clickhouse = clickhouse
        self._restarts["clickhouse"] = _RestartState(time.monotonic())
        writer, reader = self.access.writer, self.access.reader
        return {
            "clickhouse_url": address,
            "clickhouse_user": writer.user,
            "clickhouse_password": SecretStr(writer.password),
            "clickhouse_reader_user": reader.user,
            "clickhouse_reader_password": SecretStr(reader.password),
        }

    def running(self) -> dict[str, bool]:
        """The embedded engines, and whether each runs."""
        running: dict[str, bool] = {}
        if self._kafka is not None:
            running["kafka"] = bool(self._kafka.pids) and not self._kafka.failed_nodes()
        if self._clickhouse is not None:
            running["clickhouse"] = not self._clickhouse.failed
        return running

    def pids(self) -> dict[str, list[int]]:
        """The processes of the embedded engines."""
        engines = {"kafka": self._kafka, "clickhouse": self._clickhouse}
        return {name: engine.pids for name, engine in engines.items() if engine is not None}

    @property
    def disk_full(self) -> bool:
        """Whether Kafka was stopped because the disk filled although new events were refused."""
        return self._disk is not None and self._disk.state == "stopped"

    def restart_if_ended(self, name: str, now_s: float) -> None:
        """Start an engine again when it has ended by itself, after growing pauses; check Kafka's
        disk.

        Call it every second, for each engine from a thread of its own. ``now_s`` is on the clock of
        ``time.monotonic``.
        """
        if name == "kafka":
            self._check_disk()
        restart = self._restarts[name]
        runs = self.running()[name]
        if (runs and restart.due_s is None) or (name == "kafka" and self.disk_full):
            return
        if restart.due_s is None:
            pause = restart.pauses.next_pause(now_s - restart.since_s)
            restart.due_s = now_s + pause
            self._report(name, f"has ended by itself; it is started again in {pause:g} s")
        elif now_s >= restart.due_s:
            restart.since_s, restart.due_s = now_s, None
            self._restart(name)

    def _check_disk(self) -> None:
        if self._disk is None:
            return
        try:
            self._disk.check()
        except (LocalError, OSError) as error:  # tried again at the next check
            self._report("kafka", f"{error}")

    def _restart(self, name: str) -> None:
        try:
            if name == "kafka" and self._kafka is not None:
                for node in self._kafka.failed_nodes():
                    self._kafka.restart(node)
            elif self._clickhouse is not None:
                self._clickhouse.restart()
        except LocalError as error:
            self._report(name, f"could not be started again: {error}")
        else:
            self._report(name, "answers again")

    def stop(self) -> None:
        """End the embedded engines."""
        # The store first: nothing writes to it any more, while Kafka may still take commits.
        for engine in (self._clickhouse, self._kafka):
            if engine is not None:
                engine.stop()
        self._clickhouse = self._kafka = None
