"""The whole pipeline on one machine: engines, topics, tables and every process.

``stepstream up``, the demo and the tests run this code::

    with Pipeline(load(data_dir=...)) as pipeline:
        pipeline.settings.kafka_brokers     # filled in, as is clickhouse_url
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import SecretStr

from stepstream.admin import groups, topics
from stepstream.admin.store import prepare_store
from stepstream.admin.versions import is_installed
from stepstream.common import endpoints
from stepstream.common.login import Login
from stepstream.common.process import identity_of
from stepstream.common.settings import data_dir, state_dir, to_environment
from stepstream.common.web.credentials import token_of
from stepstream.local.child_environment import inherited
from stepstream.local.embedded.disk import require_folder
from stepstream.local.engines import Engines
from stepstream.local.folder import DocumentFolder
from stepstream.local.processes.supervised import ProcessStatus, Report, SupervisedProcess
from stepstream.local.service_ports import (
    CONSOLE,
    GATEWAY,
    METRICS,
    NOTIFY,
    PORT_SETTINGS,
    ServicePorts,
)
from stepstream.schemas.settings import SECRETS, Settings

# Only for a process that hangs: one that ends is reported at once. On two busy cores a first start,
# with the tables of the store, took 24 s.
READY_S: Final = 120.0
DRAIN_S: Final = 20.0
WATCH_S: Final = 1.0
PORT_TAKEN: Final = 3
"""Exit code of a process whose port is taken, see ``stepstream.cli.errors``."""
PORT_TRIES: Final = 5
SECRETS_OF: Final = {
    "worker": frozenset({"kafka_sasl_password"}),
    # The reading user runs the queries of policies.
    "sink": frozenset({"kafka_sasl_password", "clickhouse_password", "clickhouse_reader_password"}),
    "notify": frozenset({"kafka_sasl_password"}),
    "gateway": frozenset({"kafka_sasl_password", "user_id_key"}),
    # It reads as the reading user; the other login is for stores that have only one.
    "console": frozenset(
        {"kafka_sasl_password", "clickhouse_reader_password", "clickhouse_password"}
    ),
}
"""The secrets that each process gets: those it needs."""
ENDING: Final = ("console", "gateway", "worker", "notify", "sink")
"""The order of stopping: what the worker publishes last is still delivered and stored."""

NEEDED: Final = {
    "faust": ("worker", "the stream processor"),
    "cramjam": ("worker", "reads compressed batches"),
    "clickhouse_connect": ("sink", "ClickHouse's client"),
    "google.protobuf": ("gateway", "decodes OpenTelemetry's requests"),
    "ahocorasick_rs": ("gateway", "searches for secrets"),
}


class PipelineError(Exception):
    """The pipeline cannot run; the message names the part and the reason."""


@dataclass(frozen=True)
class PipelineStatus:
    """The pipeline at one moment. ``engines`` names the embedded ones and whether each runs."""

    kafka: str
    clickhouse: str
    processes: tuple[ProcessStatus, ...]
    engines: dict[str, bool]

    @property
    def healthy(self) -> bool:
        return all(process.running for process in self.processes) and all(self.engines.values())


class Pipeline:
    """Everything that ``stepstream up`` runs, as a context manager.

    Engines whose addresses are set are used and not started. ``report`` receives lines for people:
    the part and the text. ``start`` returns when events may be sent and queries asked; ``stop``
    lets worker, notifier and sink finish what they have read.
    """

    def __init__(
        self, settings: Settings, *, report: Report | None = None, usual_ports: bool = False
    ) -> None:
        self._settings = settings.model_copy(
            update={"state_dir": str(state_dir(settings)), "data_dir": str(data_dir(settings))}
        )
        self._report = report or (lambda _who, _line: None)
        self._engines = Engines(self._settings, self._report, usual_ports=usual_ports)
        self._ports = ServicePorts(self._settings, Path(self._settings.data_dir), usual=usual_ports)
        self._port_tries = dict.fromkeys(SECRETS_OF, 0)
        self._without_port: set[str] = set()
        self._published = False
        self._processes: dict[str, SupervisedProcess] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._documents: DocumentFolder | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force, with the addresses filled in once it has started."""
        return self._settings

    def start(self) -> Settings:
        """Start everything; when that fails, nothing is left running.

        Raises ``PipelineError``, ``LocalError``, ``TopicsError``, or ``AddressTaken`` for a port
        that a setting names and another program has.
        """
        self._refuse_second()
        self._refuse_same_ports()
        for setting in ("state_dir", "data_dir"):
            require_folder(Path(getattr(self._settings, setting)), setting)
        require_packages()
        self._ports.check()
        try:
            self._start_parts()
            self._wait_ready()
            self._publish_addresses()
            self._watch()
        except BaseException:
            self.stop(drain_s=2)
            raise
        return self._settings

    def stop(self, *, drain_s: float = DRAIN_S) -> None:
        """Stop worker, notifier, sink and engines; kill what takes longer than ``drain_s``.

        Idempotent.
        """
        # Before anything ends: the threads would start it again.
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        endpoints.remove(Path(self._settings.state_dir), os.getpid())
        for name in ENDING:
            if name in self._processes:
                self._processes[name].stop(drain_s)
        self._engines.stop()

    def status(self) -> PipelineStatus:
        """What runs, and where."""
        processes = tuple(process.status() for process in self._processes.values())
        return PipelineStatus(
            self._settings.kafka_brokers,
            self._settings.clickhouse_url,
            processes,
            self._engines.running(),
        )

    @property
    def admin_url(self) -> str:
        """Where the notifier's admin API and alert stream are; empty where the settings turn them
        off."""
        return self._ports.urls().get(NOTIFY, "")

    @property
    def gateway_url(self) -> str:
        """Where OpenTelemetry exporters send to; empty where the settings turn the gateway off."""
        return self._ports.urls().get(GATEWAY, "")

    @property
    def console_url(self) -> str:
        """Where the console is; empty where the settings turn it off."""
        return self._ports.urls().get(CONSOLE, "")

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where worker, sink and notifier serve their metrics; without those that the settings turn
        off."""
        urls = self._ports.urls()
        return {part: urls[name] for part, name in METRICS.items() if name in urls}

    @property
    def failure(self) -> str:
        """Why it cannot go on; empty while it can."""
        return (
            "the disk is full: Kafka was stopped so that its log stays whole"
            if self._engines.disk_full
            else ""
        )

    def pids(self) -> dict[str, list[int]]:
        """The pids of each part, without this process."""
        own = {status.name: [status.pid] for status in self.status().processes if status.pid}
        return {**self._engines.pids(), **own}

    def kill(self, name: str) -> None:
        """SIGKILL the worker, the notifier or the sink; it is started again.

        For tests of what survives.
        """
        self._processes[name].kill()

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _refuse_second(self) -> None:
        running = endpoints.read(Path(self._settings.state_dir))
        if running is not None:
            raise PipelineError(
                f"a pipeline already runs from {self._settings.state_dir} (process {running.pid}, "
                f"Kafka {running.kafka}): "
                f"use it, stop it, or choose another --state-dir and --data-dir"
            )

    def _refuse_same_ports(self) -> None:
        """Two servers cannot share a port: the second would report that another program has it."""
        names: dict[int, str] = {}
        for name in ("kafka_port", "clickhouse_port", *PORT_SETTINGS.values()):
            port = getattr(self._settings, name)
            if port > 0 and port in names:
                raise PipelineError(
                    f"{names[port]} and {name} are both {port}: give each a port of its own, or 0 "
                    "for any"
                )
            names[port] = name

    def _start_parts(self) -> None:
        """Kafka, topics, documents and worker in parallel with ClickHouse and its tables; then the
        sink."""
        with ThreadPoolExecutor(2, thread_name_prefix="start") as pool:
            sides = [pool.submit(self._start_kafka_side), pool.submit(self._start_clickhouse_side)]
            for side in sides:
                # Wait for both, also when one fails: what has been started must be stopped.
                side.exception()
        found = {name: value for side in sides for name, value in side.result().items()}
        self._settings = self._settings.model_copy(update=found)
        self._run("sink", self._settings)
        if self._settings.console_port >= 0:
            self._run(CONSOLE, self._settings)

    def _start_kafka_side(self) -> dict[str, Any]:
        began = time.monotonic()
        found = self._engines.start_kafka()
        settings = self._settings.model_copy(update=found)
        self._report(
            "kafka", f"answers at {settings.kafka_brokers} ({time.monotonic() - began:.1f} s)"
        )
        for report in topics.create_topics(settings):
            for line in (*report.differences, *report.refused.splitlines()):
                self._report("kafka", f"topic {report.name}: {line}")
        if settings.documents_dir:
            self._documents = DocumentFolder(
                settings, Path(settings.documents_dir).expanduser().absolute(), self._report
            )
            self._documents.sync()
        self._run("worker", settings)
        self._run("notify", settings)
        if settings.gateway_port >= 0:
            self._run(GATEWAY, settings)
        return found

    def _start_clickhouse_side(self) -> dict[str, Any]:
        began = time.monotonic()
        found = self._engines.start_clickhouse()
        settings = self._settings.model_copy(update=found)
        self._report(
            "clickhouse", f"answers at {settings.clickhouse_url} ({time.monotonic() - began:.1f} s)"
        )
        prepare_store(settings)
        return found

    def _run(self, name: str, settings: Settings) -> None:
        command = [sys.executable, "-m", "stepstream", name, "--lifeline"]
        environment = self._environment(name, settings)
        amend = partial(self._amend, name, settings)
        process = SupervisedProcess(
            name, command, environment, self._report, low_priority=name == "sink", amend=amend
        )
        self._processes[name] = process
        process.start()

    def _environment(self, name: str, settings: Settings) -> dict[str, str]:
        """The environment of a process: all settings, its own ports, and the secrets that it
        needs."""
        hidden = {secret: SecretStr("") for secret in SECRETS - SECRETS_OF[name]}
        own = settings.model_copy(
            update={**hidden, **self._ports.of(name), "credentials_file": self._credentials_file}
        )
        return {
            **inherited(name, settings, os.environ),
            **to_environment(own),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def _credentials_file(self) -> str:
        return self._settings.credentials_file or str(self._engines.access.file)

    def _amend(self, name: str, settings: Settings, exit_code: int) -> dict[str, str] | None:
        """The environment for another try, where a process found a port taken that was chosen for
        it."""
        if exit_code != PORT_TAKEN:
            return None
        if self._port_tries[name] >= PORT_TRIES or not self._ports.choose_again(name):
            self._without_port.add(name)
            return None
        self._port_tries[name] += 1
        self._report(name, "another program has taken its port; another port is chosen")
        if self._published:
            self._publish_addresses()
        return self._environment(name, settings)

    def _wait_ready(self) -> None:
        """Wait until worker, notifier and sink have every partition, and the gateway answers."""
        client = topics.admin(self._settings)
        # Not for the console: no event is lost while it starts.
        waiting = {*groups.PARTS, *({GATEWAY} & self._processes.keys())}
        deadline = time.monotonic() + READY_S
        while waiting:
            waiting = {part for part in waiting if not self._is_ready(client, part)}
            self._check_starting(waiting, deadline)
            time.sleep(0.05)

    def _is_ready(self, client: Any, part: str) -> bool:
        if part == GATEWAY:
            return _answers(f"{self.gateway_url}/readyz")
        return groups.ready(client, self._settings, part)

    def _check_starting(self, waiting: set[str], deadline: float) -> None:
        for process in self._processes.values():
            status = process.status()
            if process.name in self._without_port:
                raise PipelineError(process.last_output().rpartition("error: ")[2])
            late = process.name in waiting and time.monotonic() > deadline
            if late or (process.name in waiting and status.restarts >= 2):
                what = "is not ready" if late else f"keeps ending (exit code {status.exit_code})"
                raise PipelineError(
                    f"the {process.name} {what}; its last "
                    f"output:\n{process.last_output() or '(none)'}"
                )

    def _publish_addresses(self) -> None:
        """Write the addresses and logins to ``endpoints.json``, for other programs of this user."""
        self._ports.save()
        self._settings = self._settings.model_copy(update=self._notify_access())
        settings, known = self._settings, identity_of(os.getpid())
        embedded = self._engines.running()
        access = self._engines.access
        endpoints.write(
            Path(settings.state_dir),
            endpoints.Endpoints(
                kafka=settings.kafka_brokers,
                clickhouse=settings.clickhouse_url,
                pid=os.getpid(),
                began=known.began if known else "",
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                data_dir=settings.data_dir,
                topic_prefix=settings.topic_prefix,
                clickhouse_database=settings.clickhouse_database,
                others=self._ports.urls(),
                writer=access.writer if "clickhouse" in embedded else Login(),
                reader=access.reader if "clickhouse" in embedded else Login(),
                kafka_login=access.kafka
                if "kafka" in embedded and settings.kafka_auth
                else Login(),
                notify_token=settings.notify_token.get_secret_value(),
            ),
        )
        self._published = True

    def _notify_access(self) -> dict[str, Any]:
        """The admin API's URL and token; with a credential file of the operator the token that is
        set."""
        found: dict[str, Any] = {
            "notify_url": self.admin_url,
            "gateway_url": self.gateway_url,
            **self._ports.of("notify"),
            **self._ports.of(GATEWAY),
            **self._ports.of(CONSOLE),
        }
        if not self._settings.credentials_file:
            writer = self._engines.access.writer
            found["notify_token"] = SecretStr(token_of(writer.user, writer.password))
        return found

    def _watch(self) -> None:
        """Keep the engines running and the documents in force, in threads."""
        targets = [partial(self._watch_engine, name) for name in self._engines.running()]
        if self._documents is not None:
            targets.append(partial(self._documents.watch, self._stopping))
        self._threads = [
            threading.Thread(target=target, name="watch", daemon=True) for target in targets
        ]
        for thread in self._threads:
            thread.start()

    def _watch_engine(self, name: str) -> None:
        while not self._stopping.wait(WATCH_S):
            self._engines.restart_if_ended(name, time.monotonic())


def _answers(url: str) -> bool:
    """Whether a process of ours answers with 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def require_packages(installed: Callable[[str], bool] = is_installed) -> None:
    """Raise ``PipelineError`` when an extra is not installed, before anything has been started."""
    missing = [f"{name} ({what})" for name, (_extra, what) in NEEDED.items() if not installed(name)]
    if missing:
        raise PipelineError(
            f"not installed: {', '.join(missing)}; pip install 'stepstream[all]' brings everything"
        )
