"""A notifier and whom it tells: a real HTTP receiver that remembers, real processes, a real Kafka."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from stepstream import documents, kafka, notify
from stepstream.common.web.credentials import SCOPES, Credentials, new_credential, save, token_of
from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.topics import create_topics
from tests.processes import Process


@dataclass
class Call:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def alerts(self) -> list[tuple[str, int]]:
        return [(one["alert_id"], one["seq"]) for one in self.data["alerts"]]


@dataclass
class Receiver:
    """An HTTP server on loopback. ``status`` decides each answer; what was answered with 2xx counts as taken."""

    status: Callable[[Call], int] = lambda _call: 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b"thanks"
    taken: list[Call] = field(default_factory=list)
    refused: list[Call] = field(default_factory=list)
    url: str = ""

    def told(self) -> list[tuple[str, int]]:
        """Every (alert, seq) that was taken, in order, with repeats."""
        return [pair for call in list(self.taken) for pair in call.alerts]


@contextmanager
def receiver(**given: Any) -> Iterator[Receiver]:
    """A receiver for as long as it is needed."""
    found = Receiver(**given)
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(self.path, dict(self.headers.items()), body, time.time())
            status = found.status(call)
            with guard:
                (found.taken if 200 <= status < 300 else found.refused).append(call)
            self.send_response(status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.answer)))
            self.end_headers()
            self.wfile.write(found.answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a notifier that was killed in the middle

    server = Server(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@cache
def admin_access() -> tuple[Path, dict[str, str]]:
    """A credential file with one caller who may do everything, and the header by which it is known."""
    entry, secret = new_credential("tests", SCOPES)
    file = Path(mkdtemp(prefix="stepstream-notify-")) / "credentials.json"
    save(file, Credentials([entry]))
    return file, {"Authorization": f"Bearer {token_of('tests', secret)}"}


def prepared(bootstrap: str, prefix: str, **more: Any) -> Settings:
    """Settings of an installation of one's own, its topics made."""
    given: dict[str, Any] = {"fleet_partitions": 2, "notify_allow_private": True, "session_timeout": 6, "log_level": "info"}
    given["credentials_file"] = str(admin_access()[0])
    settings = Settings(kafka_brokers=bootstrap, topic_prefix=prefix, **(given | more))
    create_topics(settings)
    return settings


def subscribe(settings: Settings, name: str, url: str, **fields: Any) -> Subscription:
    """Put a webhook subscription in force."""
    document = Subscription.model_validate({"name": name, "to": {"webhook": {"url": url}}} | fields)
    notify.add(settings, document)
    assert f"subscription/{name}" in documents.in_force(settings)
    return document


def notifier(settings: Settings, log: Path) -> Process:
    """A notifier in a process of its own."""
    return Process("stepstream", settings, log, "notify")


class Publisher:
    """Writes alerts as the fleet stage does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = kafka.producer(settings)

    def send(self, alert_id: str, seq: int = 1, *, partition: int = 0, **fields: Any) -> Alert:
        """One record; ``flush`` waits for it."""
        now = time.time_ns() // 1_000
        known: dict[str, Any] = {
            "alert_id": alert_id, "seq": seq, "state": "firing", "severity": "warning", "alert": "loop", "rule": "loop",
            "project": "shop", "agent": "support", "message": "same call 5 times", "opened_at": now, "updated_at": now,
        }  # fmt: skip
        alert = Alert.model_validate(known | fields)
        name = topic(self._settings.topic_prefix, "alerts")
        while True:
            try:
                self._producer.produce(name, alert.model_dump_json().encode(), key=alert_id.encode(), partition=partition)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        return alert

    def flush(self) -> None:
        """Everything is acknowledged."""
        assert self._producer.flush(30) == 0

    def close(self) -> None:
        self._producer.close()
