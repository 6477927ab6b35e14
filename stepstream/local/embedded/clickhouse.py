"""ClickHouse on this machine: chdb behind ClickHouse's HTTP protocol, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stepstream.common.process import Identity, identity_of
from stepstream.local.embedded.access import Access, prepare
from stepstream.local.embedded.base import START_SECONDS, EmbeddedEngine
from stepstream.local.embedded.errors import (
    FolderInUse,
    LocalError,
    MissingPackage,
    PortTaken,
    StartFailed,
)
from stepstream.local.embedded.ports import LOOPBACK, free_ports, is_free
from stepstream.local.priority import lower_priority
from stepstream.local.processes.child import EngineChild

# Exit codes of the server, see stepstream.local.clickhouse_server.__main__.
EXIT_PORT: Final = 3
EXIT_FOLDER: Final = 4


class EmbeddedClickHouse(EmbeddedEngine):
    """A ClickHouse in a folder; see ``EmbeddedEngine``.

    ``access`` has the users; None makes users of its own in the folder. ``options`` go to the
    server: ``python -m stepstream.local.clickhouse_server --help``. With ``low_priority`` it has
    less of a busy CPU than other processes, once it has started.
    """

    NAME = "ClickHouse"
    REFUSED_CHARACTER = "?"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        prefer_port: int = 0,
        access: Access | None = None,
        options: tuple[str, ...] = (),
        low_priority: bool = False,
        log: Callable[[str], None] | None = None,
        port_setting: str = "clickhouse_port",
    ) -> None:
        super().__init__(
            data_dir, port=port, prefer_port=prefer_port, log=log, port_setting=port_setting
        )
        self._given_access = access
        self._access: Access | None = None
        self._options = options
        self._low_priority = low_priority
        self._child: EngineChild | None = None
        self._used_port = 0

    @property
    def url(self) -> str:
        """Where it answers, ``http://127.0.0.1:port``."""
        if not self._used_port:
            raise LocalError("the embedded ClickHouse has not been started")
        return f"http://{LOOPBACK}:{self._used_port}"

    @property
    def address(self) -> str:
        return self.url

    @property
    def access(self) -> Access:
        """Its users."""
        if self._access is None:
            raise LocalError("the embedded ClickHouse has not been started")
        return self._access

    @property
    def writer_url(self) -> str:
        """Where it answers, with the login of the user that writes: not for logs or command
        lines."""
        return self.access.writer.url(self.url)

    @property
    def reader_url(self) -> str:
        """Where it answers, with the login of the user that only reads: not for logs or command
        lines."""
        return self.access.reader.url(self.url)

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def pids(self) -> list[int]:
        return [self.pid] if self.pid is not None else []

    @property
    def failed(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._child is not None and not self._child.running

    @property
    def _is_started(self) -> bool:
        return self._child is not None

    def _start(self) -> None:
        if importlib.util.find_spec("chdb") is None:
            raise MissingPackage("chdb", "the ClickHouse engine")
        earlier_port, leftover = self._load()
        self._end_leftovers([leftover] if leftover is not None else [])
        self._access = self._given_access or prepare(self._folder)

        def attempt(again: bool) -> None:
            self._used_port = free_ports(1)[0] if again else self._choose_port(earlier_port)
            self._launch()
            self._wait_ready()

        self._try_ports(attempt, self._discard_child)

    def _discard_child(self) -> None:
        if self._child is not None:
            self._child.wait(10)
        self._child = None

    def _choose_port(self, earlier: int) -> int:
        if self._port:
            if not is_free(self._port):
                raise PortTaken(self._port, self._port_setting)
            return self._port
        for port in (earlier, 0 if earlier else self._prefer):
            if port and is_free(port):
                return port
        return free_ports(1)[0]

    def _launch(self) -> None:
        command = [
            sys.executable,
            "-P",
            "-m",
            "stepstream.local.clickhouse_server",
            "--path",
            str(self._folder),
        ]
        command += [
            "--port",
            str(self._used_port),
            "--credentials",
            str(self.access.file),
            *self._options,
        ]
        self._child = EngineChild(command, self._folder / "server.out")
        self._save(identity_of(self._child.pid))

    def _wait_ready(self) -> None:
        """Wait until the server has written its address into its output file."""
        assert self._child is not None
        deadline = time.monotonic() + START_SECONDS
        while (url := self._written_url(self._child)) is None:
            if not self._child.running:
                self._raise_ended(self._child)
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"ClickHouse was not ready within {START_SECONDS:.0f} s; "
                    f"its log in {self._folder}: {self._child.last_output()}"
                )
            time.sleep(0.03)
        if urlsplit(url).port != self._used_port:
            raise StartFailed(
                f"ClickHouse was to listen on port {self._used_port} and reports that it answers "
                f"at {url}"
            )
        # Not earlier: with a low priority a start on a busy machine took more than a minute.
        if self._low_priority:
            lower_priority(self._child.pid)

    def _written_url(self, child: EngineChild) -> str | None:
        # Not a connection to the port: another program may answer there. Only the server writes
        # this file.
        for line in child.output().splitlines():
            if line.startswith('{"url"'):
                try:
                    return str(json.loads(line)["url"])
                except ValueError:
                    return None  # half of the line is there
        return None

    def _raise_ended(self, child: EngineChild) -> None:
        output = child.last_output()
        if child.exit_code == EXIT_PORT:
            raise PortTaken(self._used_port, self._port_setting)
        if child.exit_code == EXIT_FOLDER:
            raise FolderInUse(f"another process works on {self._folder}: {output}")
        raise StartFailed(f"ClickHouse ended with exit code {child.exit_code}: {output}")

    def _load(self) -> tuple[int, Identity | None]:
        """The port of the last start, and the process that may still be there."""
        try:
            known = json.loads((self._folder / "instance.json").read_text())
            return int(known["port"]), Identity(*known["running"]) if known["running"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None

    def _save(self, running: Identity | None) -> None:
        fresh = self._folder / "instance.json.new"
        content = {
            "port": self._used_port,
            "running": [running.pid, running.began] if running else None,
        }
        fresh.write_text(json.dumps(content))
        os.replace(fresh, self._folder / "instance.json")

    def stop(self, timeout: float = 20) -> None:
        with self._guard:
            try:
                if self._child is not None:
                    self._child.stop(timeout)
                    self._child = None
                    self._save(None)
            finally:
                self._lock.release()

    def kill(self) -> None:
        """SIGKILL, for fault tests; ``restart`` continues with the folder."""
        if self._child is None:
            raise LocalError("the embedded ClickHouse has not been started")
        self._child.kill()

    def pause(self) -> None:
        """SIGSTOP, for fault tests: it keeps its connections and does not answer."""
        if self._child is not None:
            self._child.send("stop")

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        if self._child is not None:
            self._child.send("cont")

    def restart(self) -> None:
        """Start it again on the same port, after ending it if it runs."""
        with self._guard:
            if self._child is None:
                raise LocalError("the embedded ClickHouse has not been started")
            self._child.stop(20)
            self._launch()
            self._wait_ready()
