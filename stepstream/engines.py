"""Kafka and ClickHouse for one machine: those that the settings name, the embedded ones in their place."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepstream.children import Say
from stepstream.embedded.errors import EmbeddedError, PortTaken
from stepstream.embedded.ports import is_free
from stepstream.schemas.settings import Settings
from stepstream.settings import data_dir

if TYPE_CHECKING:
    from stepstream.embedded.clickhouse import EmbeddedClickHouse
    from stepstream.embedded.kafka import EmbeddedKafka

KAFKA_PORT: Final = 9092
CLICKHOUSE_PORT: Final = 8123
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


class Engines:
    """Starts, watches and stops the embedded engines; an engine whose address is set already is left to its owner.

    ``usual_ports``: 9092 and 8123 where they are free and no port is set. Otherwise any free ones.
    """

    def __init__(self, settings: Settings, say: Say, *, usual_ports: bool) -> None:
        self._settings = settings
        self._say = say
        self._usual_ports = usual_ports
        self._folder = data_dir(settings)
        self._kafka: EmbeddedKafka | None = None
        self._clickhouse: EmbeddedClickHouse | None = None
        self._pauses: dict[str, tuple[float, float]] = {}

    def start_kafka(self) -> str:
        """The brokers, once they acknowledge records."""
        return self._settings.kafka_brokers or self._with_port(
            self._settings.kafka_port, KAFKA_PORT, self._start_embedded_kafka
        )

    def start_clickhouse(self) -> str:
        """The store's URL, once it answers."""
        return self._settings.clickhouse_url or self._with_port(
            self._settings.clickhouse_port, CLICKHOUSE_PORT, self._start_embedded_clickhouse
        )

    def _with_port(self, given: int, usual: int, start: Callable[[int], str]) -> str:
        if given:
            return start(given)
        if self._usual_ports and is_free(usual):
            try:
                return start(usual)
            except PortTaken:  # somebody was quicker
                pass
        return start(0)

    def _start_embedded_kafka(self, port: int) -> str:
        from stepstream.embedded.kafka import EmbeddedKafka

        jars = self._settings.kafka_jars_dir
        kafka = EmbeddedKafka(
            self._folder / "kafka",
            port=port,
            heap_mb=self._settings.kafka_heap_mb,
            jars_dir=Path(jars).expanduser() if jars else None,
            log=lambda line: self._say("kafka", line),
        )
        address = kafka.start()
        self._kafka = kafka
        return address

    def _start_embedded_clickhouse(self, port: int) -> str:
        from stepstream.embedded.clickhouse import EmbeddedClickHouse

        clickhouse = EmbeddedClickHouse(self._folder / "clickhouse", port=port)
        address = clickhouse.start()
        self._clickhouse = clickhouse
        return address

    def running(self) -> dict[str, bool]:
        """The embedded engines, and whether each runs."""
        held: dict[str, bool] = {}
        if self._kafka is not None:
            held["kafka"] = not self._kafka.failed_nodes()
        if self._clickhouse is not None:
            held["clickhouse"] = self._clickhouse.running
        return held

    def pids(self) -> dict[str, list[int]]:
        """The processes of the embedded engines."""
        held: dict[str, list[int]] = {}
        if self._kafka is not None:
            held["kafka"] = self._kafka.pids
        if self._clickhouse is not None:
            held["clickhouse"] = self._clickhouse.pids
        return held

    def mend(self, now_s: float) -> None:
        """Start again what has ended by itself; an engine that keeps ending is given growing pauses."""
        for name, runs in self.running().items():
            pause, since = self._pauses.get(name, (0.0, now_s))
            if runs:
                if now_s - since > 2 * LONGEST_PAUSE_S:
                    self._pauses.pop(name, None)
            elif now_s - since >= pause:
                self._say(name, "has ended by itself and is started again")
                self._pauses[name] = (min(LONGEST_PAUSE_S, pause * 2) or FIRST_PAUSE_S, time.monotonic())
                self._restart(name)

    def _restart(self, name: str) -> None:
        try:
            if name == "kafka" and self._kafka is not None:
                for node in self._kafka.failed_nodes():
                    self._kafka.restart(node)
            elif name == "clickhouse" and self._clickhouse is not None:
                self._clickhouse.restart()
        except EmbeddedError as error:
            self._say(name, f"could not be started again: {error}")

    def stop(self) -> None:
        """End the embedded engines, the store first: it has no clients any more."""
        for engine in (self._clickhouse, self._kafka):
            if engine is not None:
                engine.stop()
        self._clickhouse = self._kafka = None
