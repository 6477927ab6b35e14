"""Subscribers of the alert latency benchmark: each records when it received an alert, by trace_id.

Times are unix seconds.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from stepstream.schemas.settings import Settings
from stepstream.sinks.subscribe import subscribe
from tests.support.receiver import Call, receiver

ReceivedAt = dict[str, float]


@contextmanager
def iterator(settings: Settings, agent: str) -> Iterator[ReceivedAt]:
    """``for alert in subscribe(agent=...)``."""
    received: ReceivedAt = {}
    alerts = subscribe(settings=settings, agent=agent)

    def follow() -> None:
        for alert in alerts:
            received.setdefault(alert.trace_id, time.time())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield received
    alerts.stop()
    thread.join(10)
    alerts.close()


@contextmanager
def stream(admin_url: str, token: str, agent: str) -> Iterator[ReceivedAt]:
    """Server-sent events of the notifier."""
    received: ReceivedAt = {}
    at = urlsplit(admin_url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    connection.request(
        "GET", f"/alerts/stream?agent={agent}", headers={"Authorization": f"Bearer {token}"}
    )
    answer = connection.getresponse()
    answer.readline()

    def follow() -> None:
        try:
            for line in answer:
                if line.startswith(b"data: "):
                    received.setdefault(json.loads(line[6:])["trace_id"], time.time())
        except (OSError, ValueError, AttributeError):
            return  # closed below

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield received
    connection.close()


@contextmanager
def webhook() -> Iterator[tuple[str, ReceivedAt]]:
    """An HTTP server that takes notifications; its URL and what it received."""
    received: ReceivedAt = {}

    def note(call: Call) -> int:
        for alert in call.data["alerts"]:
            received.setdefault(alert["trace_id"], call.at_s)
        return 200

    with receiver(status=note) as found:
        yield f"{found.url}/", received
