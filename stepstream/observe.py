"""Metrics and health over HTTP, for every process: ``/metrics`` (Prometheus), ``/healthz`` and ``/readyz``.

Loopback unless a setting says otherwise. Imports only common, schemas and prometheus-client, which comes with the extras
worker and sink. ``/healthz`` answers 503 when the process is stuck and should be restarted, ``/readyz`` while it is not
working yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stepstream.common.listen import explained
from stepstream.schemas.metrics import Metric

log = logging.getLogger("stepstream")

Check = Callable[[], str]
"""Empty when all is well, else what is wrong."""


class Observer:
    """The metrics of one process, made from their declarations on first use."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._mirrored: dict[tuple[str, ...], float] = {}
        self._before_scrape: list[Callable[[], None]] = []
        self.health: Check = lambda: ""
        self.readiness: Check = lambda: "starting"

    def counter(self, metric: Metric) -> Counter:
        """The counter of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)
        assert isinstance(made, Counter)
        return made

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)
        assert isinstance(made, Gauge)
        return made

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Histogram(
                metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        assert isinstance(made, Histogram)
        return made

    def declare(self, metric: Metric) -> None:
        """Serve a metric from now on, before anything of it was counted."""
        {"counter": self.counter, "gauge": self.gauge, "histogram": self.histogram}[metric.kind](metric)

    def mirror(self, metric: Metric, total: float, *labels: str) -> None:
        """Bring a counter up to a total that is counted elsewhere."""
        counter = self.counter(metric)
        key = (metric.name, *labels)
        (counter.labels(*labels) if labels else counter).inc(max(0.0, total - self._mirrored.get(key, 0.0)))
        self._mirrored[key] = total

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before each answer: for values that are cheaper to look up than to keep."""
        self._before_scrape.append(refresh)

    def text(self) -> bytes:
        """What ``/metrics`` answers."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)


class ObserverServer:
    """Serves an observer until closed."""

    def __init__(self, observer: Observer, *, host: str, port: int) -> None:
        """``port`` 0 takes a free one; see ``port`` afterwards. Raises ``AddressTaken`` when another program has it."""
        handler = type("Handler", (_Handler,), {"observer": observer})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise explained(error, port, "metrics_port", host) from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="stepstream-metrics", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    observer: Observer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        path = self.path.partition("?")[0]
        try:
            if path == "/metrics":
                self._answer(200, self.observer.text(), CONTENT_TYPE_LATEST)
            elif path in ("/healthz", "/readyz"):
                wrong = self.observer.health() or (self.observer.readiness() if path == "/readyz" else "")
                self._answer(503 if wrong else 200, (wrong or "ok").encode() + b"\n", "text/plain; charset=utf-8")
            else:
                self._answer(404, b"see /metrics, /healthz, /readyz\n", "text/plain; charset=utf-8")
        except Exception:
            log.exception("answering %s failed", path)
            self._answer(500, b"see the log\n", "text/plain; charset=utf-8")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line."""
