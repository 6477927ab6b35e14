"""Subscribers of the alert latency benchmark: each notes when it holds an alert, by trace_id. Times are unix seconds."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from stepstream.schemas.settings import Settings
from stepstream.sinks.subscribe import subscribe

Held = dict[str, float]


@contextmanager
def iterator(settings: Settings, agent: str) -> Iterator[Held]:
    """``for alert in subscribe(agent=...)``."""
    held: Held = {}
    alerts = subscribe(settings=settings, agent=agent)

    def follow() -> None:
        for alert in alerts:
            held.setdefault(alert.trace_id, time.time())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield held
    alerts.stop()
    thread.join(10)
    alerts.close()


@contextmanager
def stream(admin_url: str, token: str, agent: str) -> Iterator[Held]:
    """Server-sent events of the notifier."""
    held: Held = {}
    at = urlsplit(admin_url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    connection.request("GET", f"/alerts/stream?agent={agent}", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    answer.readline()

    def follow() -> None:
        try:
            for line in answer:
                if line.startswith(b"data: "):
                    held.setdefault(json.loads(line[6:])["trace_id"], time.time())
        except (OSError, ValueError, AttributeError):
            return  # closed below

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield held
    connection.close()


@contextmanager
def webhook() -> Iterator[tuple[str, Held]]:
    """An HTTP server that takes notifications; its URL and what it holds."""
    held: Held = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            now = time.time()
            for alert in json.loads(body)["alerts"]:
                held.setdefault(alert["trace_id"], now)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", held
    server.shutdown()
    server.server_close()
