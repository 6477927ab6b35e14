"""A console for tests: its own thread, a signed-in client, and a page that follows a run."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stepstream.console import address
from stepstream.console.server import Console
from stepstream.schemas.settings import Settings

# Addresses at which nothing answers.
NOWHERE = {"kafka_brokers": "127.0.0.1:1", "clickhouse_url": "http://127.0.0.1:2"}


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Sends requests to a console, with the cookie of a session if there is one."""

    console: Console
    cookie: str = ""

    def sign_in(self) -> None:
        """With a one-time link, as a browser does."""
        link = address.link(self.console.address)
        got = self.get(link.removeprefix(self.console.server.url))
        assert got.status == 303
        self.cookie = got.headers["set-cookie"].partition(";")[0]

    def get(self, path: str, **headers: str) -> Got:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, data: Any, **headers: str) -> Got:
        """JSON with the headers that a page of the console sends."""
        given = {"Content-Type": "application/json", "X-Stepstream-CSRF": "1", **headers}
        return self.send("POST", path, json.dumps(data).encode(), given)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Got:
        connection = self.connection()
        given = {"Cookie": self.cookie} if self.cookie else {}
        given |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            headers_got = {name.lower(): value for name, value in answer.getheaders()}
            return Got(answer.status, headers_got, answer.read())
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        where = urlsplit(self.console.server.url)
        return http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)


@contextmanager
def running(folder: Path, buffer_bytes: int = 64 << 20, **settings: Any) -> Iterator[Client]:
    """A console in a thread, and a client that is signed in."""
    given = {**NOWHERE, "state_dir": str(folder), **settings}
    console = Console(Settings(**given), buffer_bytes=buffer_bytes)
    console.start()
    client = Client(console)
    client.sign_in()
    try:
        yield client
    finally:
        console.close()


@dataclass
class Page:
    """What the page of a run does: the stream first, the snapshot when it is ready, then merging.

    ``steps`` has each (step, phase) once, as the page keeps them.
    """

    client: Client
    trace_id: str
    steps: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[str, Any]] = field(default_factory=list)
    last_id: str = ""
    # Steps of the stream that were known already.
    repeats: int = 0

    def open(self) -> None:
        """Follow the run in a thread until ``close``."""
        connection = self.client.connection()
        headers = {"Cookie": self.client.cookie}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        path = f"/api/v1/live?run={self.trace_id}&alerts=1&runs=1"
        connection.request("GET", path, headers=headers)
        self._socket = connection.sock
        self._answer = connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._answer.close()
        self._thread.join(30)

    def seen(self, name: str) -> list[Any]:
        """The data of all events of a name."""
        return [data for event, data in list(self.events) if event == name]

    @property
    def ended(self) -> set[str]:
        """Ids of the steps whose end the page has."""
        return {step for step, phase in list(self.steps) if phase == "end"}

    def snapshot(self) -> None:
        """Read the steps from the store and merge them."""
        got = self.client.get(f"/api/v1/runs/{self.trace_id}/steps")
        if got.status == 404:  # nothing of the run is stored yet
            return
        assert got.status == 200, got.body
        columns = got.json["columns"]
        for values in zip(*columns.values(), strict=True):
            step = dict(zip(columns, values, strict=True))
            self._merge(step, "start" if step["end_time"] is None else "end")

    def _merge(self, step: dict[str, Any], phase: str) -> None:
        key = (step["step_id"], phase)
        self.repeats += key in self.steps
        self.steps.setdefault(key, step)

    def _follow(self) -> None:
        name = data = ""
        with suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self._answer:
                text = line.decode().rstrip("\n")
                field_name, _, value = text.partition(": ")
                if field_name == "event":
                    name = value
                elif field_name == "id":
                    self.last_id = value
                elif field_name == "data":
                    data = value
                elif not text and data:
                    self._receive(name, json.loads(data))
                    data = ""

    def _receive(self, name: str, data: Any) -> None:
        if name == "ready" and data.get("run") and not data["resumed"]:
            self.snapshot()
        if name == "steps":
            for step in data["steps"]:
                self._merge(step, step["phase"])
        self.events.append((name, data))
