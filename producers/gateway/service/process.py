"""The gateway's process: it starts the server from the settings and runs until SIGTERM."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Final

from stepstream.common.listen import explained
from stepstream.common.observe import Observer
from stepstream.common.web.app import create
from stepstream.common.web.headers import Hosts
from stepstream.common.web.key_file import KeyFile
from stepstream.common.web.protocol import Limits
from stepstream.common.web.server import WebServer
from stepstream.producers.gateway.mapping.options import Options, options_of
from stepstream.producers.gateway.service.admission import Admission
from stepstream.producers.gateway.service.callers import GatewayAccess
from stepstream.producers.gateway.service.collector_topic import CollectorReader
from stepstream.producers.gateway.service.control import (
    ControlEndpoints,
    ControlHub,
    SeenTraces,
    SendCommand,
)
from stepstream.producers.gateway.service.counts import Counts
from stepstream.producers.gateway.service.http import Endpoints
from stepstream.producers.gateway.service.ingest import Ingest, Memory
from stepstream.producers.gateway.service.kafka_writer import WAIT_S, KafkaWriter
from stepstream.producers.gateway.service.releases import ReleaseEndpoint, ReleaseReader
from stepstream.producers.gateway.service.tasks import TaskEndpoints, TaskHub
from stepstream.schemas import metrics
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.producers.gateway.service.grpc_server import GrpcServer

LIMITS: Final = Limits(connections=2_000, head_bytes=32 << 10, head_s=20.0)
GRACE_S: Final = 8.0
_log = logging.getLogger("stepstream.gateway")


def _options_of(settings: Settings) -> Options:
    return options_of(settings, other_spans=settings.gateway_other_spans)


class Gateway:
    """A gateway that listens from the moment it is made."""

    def __init__(self, settings: Settings, send_command: SendCommand) -> None:
        """Raises ``AddressTaken``, ``OSError`` and ``CredentialsError``."""
        self.observer = Observer()
        self.writer = KafkaWriter(settings)
        self.admission = Admission(settings.gateway_in_flight_bytes, settings.gateway_rate_limit)
        hosts = Hosts(settings.gateway_host)
        counts = Counts(self.observer)
        access = GatewayAccess(KeyFile(settings.credentials_file), hosts)
        seen = SeenTraces()
        memory = Memory()
        self.hub = ControlHub(settings)
        control = ControlEndpoints(
            self.hub,
            seen,
            send_command,
            project=settings.project,
            stopping=lambda: self.server.stopping,
        )
        endpoints = Endpoints(
            project=settings.project,
            max_body_bytes=settings.gateway_max_body_bytes,
            ingest=Ingest(_options_of(settings), memory),
            writer=self.writer,
            admission=self.admission,
            counts=counts,
            seen=seen,
        )
        self.releases = ReleaseReader(settings)
        release = ReleaseEndpoint(self.releases)
        self.tasks = TaskHub(settings)
        tasks = TaskEndpoints(
            self.tasks, project=settings.project, stopping=lambda: self.server.stopping
        )
        app = create(
            [*control.routes(), *release.routes(), *tasks.routes(), *endpoints.routes()],
            hosts=hosts,
            access=access,
            observed=self.observer,
        )
        try:
            self.server = WebServer(
                app, settings.gateway_host, settings.gateway_port, LIMITS, grace_s=GRACE_S
            )
        except OSError as error:
            raise explained(
                error, settings.gateway_port, "gateway_port", settings.gateway_host
            ) from None
        self.grpc = self._grpc_server(settings, access, counts, seen, memory)
        self.collector: CollectorReader | None = None
        if settings.gateway_from_kafka:
            ingest = Ingest(_options_of(settings), memory)
            self.collector = CollectorReader(
                settings, settings.gateway_from_kafka, ingest, self.writer
            )
        self.observer.readiness = self._readiness
        # Gauges are read when metrics are scraped, so that requests do not pay for them.
        self.observer.before_scrape(self._refresh)

    def _grpc_server(
        self,
        settings: Settings,
        access: GatewayAccess,
        counts: Counts,
        seen: SeenTraces,
        memory: Memory,
    ) -> GrpcServer | None:
        if settings.gateway_grpc_port < 0:
            return None
        from stepstream.producers.gateway.service.grpc_server import GrpcServer, Shared

        server = GrpcServer(
            f"{settings.gateway_host}:{settings.gateway_grpc_port}",
            access=access,
            project=settings.project,
            max_bytes=settings.gateway_max_body_bytes,
            # One of its own: it works in another thread.
            ingest=Ingest(_options_of(settings), memory),
            shared=Shared(self.writer, self.admission, counts, seen),
        )
        _log.info("gRPC at %s:%d", settings.gateway_host, server.port)
        return server

    def run(self) -> None:
        """Answer until ``stop``."""
        _log.info("the gateway answers at %s", self.server.url)
        try:
            self.server.run()
        finally:
            self._close_parts()

    def stop(self) -> None:
        """Take no more requests and end; from any thread or signal."""
        self.server.stop()

    def close(self) -> None:
        """``stop``, and wait for the end of a server that was started in a thread."""
        self.server.close()
        self._close_parts()

    def _close_parts(self) -> None:
        for part in (self.grpc, self.collector):
            if part is not None:
                part.close()
        self.hub.close()
        self.releases.close()
        self.tasks.close()
        self.writer.close()

    def _readiness(self) -> str:
        if not self.writer.connected:
            return "Kafka has not answered yet, or has no topic of steps"
        return "Kafka does not answer" if self.writer.stuck_s >= WAIT_S else ""

    def _refresh(self) -> None:
        self.observer.gauge(metrics.GATEWAY_IN_FLIGHT).set(self.admission.in_flight_bytes)
        self.observer.gauge(metrics.GATEWAY_QUEUED).set(self.writer.queued)
        self.observer.gauge(metrics.GATEWAY_STREAMS).set(self.hub.open)


def run(settings: Settings, send_command: SendCommand) -> int:
    """Run a gateway until SIGTERM or SIGINT; returns the exit code. Raises as ``Gateway``."""
    gateway = Gateway(settings, send_command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: gateway.stop())
    gateway.run()
    return 0
