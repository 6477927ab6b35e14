"""Metrics and health over HTTP, for every process: ``/metrics`` (Prometheus), ``/healthz`` and
``/readyz``.

On loopback by default. Imports only common, schemas and prometheus-client, which the extras worker
and sink install. ``/healthz`` answers 503 when the process is stuck and should be restarted,
``/readyz`` while it does not work yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stepstream.common.listen import explained
from stepstream.common.web.access import Access
from stepstream.common.web.app import create
from stepstream.common.web.credentials import load_or_none
from stepstream.common.web.headers import Hosts
from stepstream.common.web.protocol import Limits
from stepstream.common.web.server import WebServer
from stepstream.schemas.metrics import Metric
from stepstream.schemas.settings import Settings

LIMITS = Limits(connections=100, idle_s=120.0)

Check = Callable[[], str]
"""Returns an empty text when all is well, otherwise what is wrong."""


class Observer:
    """The metrics of one process, created from their declarations on first use."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._mirrored: dict[tuple[str, ...], float] = {}
        self._before_scrape: list[Callable[[], None]] = []
        self.health: Check = lambda: ""
        # Until the process sets its own check, so that no early scrape reports ready.
        self.readiness: Check = lambda: "starting"

    def counter(self, metric: Metric) -> Counter:
        """The counter of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Counter(
                metric.name, metric.meaning, metric.labels, registry=self.registry
            )
        assert isinstance(made, Counter)
        return made

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Gauge(
                metric.name, metric.meaning, metric.labels, registry=self.registry
            )
        assert isinstance(made, Gauge)
        return made

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of a declaration."""
        made = self._made.get(metric.name)
        if made is None:
            made = self._made[metric.name] = Histogram(
                metric.name,
                metric.meaning,
                metric.labels,
                registry=self.registry,
                buckets=metric.buckets,
            )
        assert isinstance(made, Histogram)
        return made

    def declare(self, metric: Metric) -> None:
        """Create a metric, so that it is served before anything is counted."""
        {"counter": self.counter, "gauge": self.gauge, "histogram": self.histogram}[metric.kind](
            metric
        )

    def mirror(self, metric: Metric, total: float, *labels: str) -> None:
        """Raise a counter to a total that is counted elsewhere."""
        counter = self.counter(metric)
        key = (metric.name, *labels)
        (counter.labels(*labels) if labels else counter).inc(
            max(0.0, total - self._mirrored.get(key, 0.0))
        )
        self._mirrored[key] = total

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before each answer, for values that are cheaper to read than to keep
        current.
        """
        self._before_scrape.append(refresh)

    def text(self) -> bytes:
        """The answer of ``/metrics``."""
        for refresh in self._before_scrape:
            refresh()
        return generate_latest(self.registry)


class ObserverServer:
    """Serves an observer, in a thread, until closed.

    ``/healthz`` and ``/readyz`` answer every caller with a fixed text. ``/metrics`` answers callers
    on this machine, and from elsewhere those with the scope ``read``.
    """

    def __init__(
        self, observer: Observer, *, host: str, port: int, credentials_file: str = ""
    ) -> None:
        """``port`` 0 takes a free port; the attribute ``port`` has it afterwards.

        Raises ``AddressTaken`` when the port is in use, ``CredentialsError`` where the credential
        file cannot be used.
        """
        app = create(
            [], hosts=Hosts(host), access=Access(load_or_none(credentials_file)), observed=observer
        )
        try:
            self._server = WebServer(app, host, port, LIMITS, grace_s=1)
        except OSError as error:
            raise explained(error, port, "metrics_port", host) from None
        self.port = self._server.port
        self._server.start("stepstream-metrics")

    def close(self) -> None:
        """Stop serving."""
        self._server.close()


def serve(observer: Observer, settings: Settings, log: logging.Logger) -> ObserverServer | None:
    """Serve at the address of the settings; None where they turn it off. Raises as
    ``ObserverServer``.
    """
    if settings.metrics_port < 0:
        return None
    host, file = settings.metrics_host, settings.credentials_file
    server = ObserverServer(observer, host=host, port=settings.metrics_port, credentials_file=file)
    log.info("metrics at http://%s:%d/metrics", host, server.port)
    return server
