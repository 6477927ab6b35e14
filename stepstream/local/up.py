"""``stepstream up``: the pipeline in a terminal, with its addresses and output, until a signal."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepstream.admin.versions import clickhouse_version, package_versions
from stepstream.common import endpoints, terminal
from stepstream.local.embedded.disk import free_bytes
from stepstream.local.embedded.fetch import KAFKA_VERSION
from stepstream.local.supervisor import Pipeline, PipelineError
from stepstream.schemas.settings import Settings

LOGINS: Final = (
    "kafka_sasl_mechanism",
    "kafka_sasl_username",
    "kafka_sasl_password",
    "clickhouse_user",
    "clickhouse_password",
    "clickhouse_reader_user",
    "clickhouse_reader_password",
    "notify_token",
)
"""Settings that a running ``up`` publishes together with its addresses."""
COLOURS: Final = {
    "kafka": "magenta",
    "clickhouse": "yellow",
    "worker": "cyan",
    "sink": "green",
    "notify": "bright_red",
    "gateway": "bright_blue",
    "console": "bright_cyan",
    "documents": "blue",
}


def run(settings: Settings) -> int:
    """Run the pipeline until SIGINT or SIGTERM; returns the exit code."""
    console = terminal.console(soft_wrap=True)
    stopping = threading.Event()
    settings = _without_running(settings)
    with _signals() as requests:
        began = time.monotonic()
        pipeline = Pipeline(
            settings, report=lambda part, line: _print_line(console, part, line), usual_ports=True
        )
        console.print(Text("stepstream is starting (Ctrl-C stops it)", style="bold"))
        pipeline.start()
        try:
            requests.gentle = stopping
            _print_ready(console, _facts(settings, pipeline), time.monotonic() - began)
            while not stopping.wait(1):
                if pipeline.failure:
                    raise PipelineError(pipeline.failure)
            console.print(
                "stepstream is stopping: gateway, worker, notifier and sink finish what they have "
                "read (Ctrl-C again: at once)"
            )
        finally:
            pipeline.stop()
        console.print("stopped; the data stays")
    return 0


class _StopRequests:
    """Handles SIGINT and SIGTERM. The first one sets ``gentle``, the second one exits at once."""

    def __init__(self) -> None:
        self.gentle: threading.Event | None = None
        self._times = 0

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self._times += 1
        if self._times > 1:
            # The parts notice that this process is gone, and continue with what Kafka has next
            # time.
            os._exit(130)
        if self.gentle is None:
            raise KeyboardInterrupt
        self.gentle.set()


@contextmanager
def _signals() -> Iterator[_StopRequests]:
    requests = _StopRequests()
    before = {number: signal.signal(number, requests) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _without_running(settings: Settings) -> Settings:
    """The settings without addresses of a running ``up``, which are not servers of the user."""
    running = endpoints.read(Path(settings.state_dir))
    if running is None or settings.kafka_brokers != running.kafka:
        return settings
    defaults = Settings()
    found = ("kafka_brokers", "clickhouse_url", "notify_url", "gateway_url", *LOGINS)
    return settings.model_copy(update={name: getattr(defaults, name) for name in found})


def _gateway(pipeline: Pipeline) -> str:
    if not pipeline.gateway_url:
        return "off"
    return (
        f"OTEL_EXPORTER_OTLP_ENDPOINT={pipeline.gateway_url}; `stepstream gateway check` prints "
        f"the variables of each framework; JSON: {pipeline.gateway_url}/v1/steps"
    )


def _console(pipeline: Pipeline) -> str:
    if not pipeline.console_url:
        return "off"
    return f"{pipeline.console_url} (`stepstream open` opens it, signed in)"


def _print_line(console: Console, part: str, line: str) -> None:
    """Print a line of a part; with the time when the output goes to a file."""
    stamp = "" if console.is_terminal else f"{datetime.now().astimezone():%H:%M:%S} "
    for one in line.splitlines():
        console.print(Text(f"{stamp}{part:<10} | ", style=COLOURS.get(part, "dim")) + Text(one))


def _print_ready(console: Console, facts: list[tuple[str, str]], seconds: float) -> None:
    console.print()
    console.print(Text(f"stepstream is up ({seconds:.1f} s)", style="bold green"))
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for name, text in facts:
            table.add_row(f"  {name}", Text(text))
        console.print(table)
    else:
        for name, text in facts:
            terminal.echo(f"  {name:<14} {text}")
    terminal.echo("")


def _facts(given: Settings, pipeline: Pipeline) -> list[tuple[str, str]]:
    """The table printed once it runs;

    ``given`` are the settings before addresses were filled in.
    """
    settings = pipeline.settings
    captured = (
        "inputs and outputs are captured, known secrets redacted (STEPSTREAM_CAPTURE_CONTENT=false "
        "turns that off)"
        if settings.capture_content
        else "inputs and outputs are not captured, only their sizes"
    )
    documents = (
        f"{settings.documents_dir}, watched"
        if settings.documents_dir
        else "stepstream apply -f FILE"
    )
    free_gb = free_bytes(Path(settings.data_dir)) / 1e9
    return [
        (
            "send events",
            "import stepstream: finds the address. Elsewhere: "
            f"STEPSTREAM_ENDPOINT=kafka://{settings.kafka_brokers}{_sasl(settings)}",
        ),
        ("OpenTelemetry", _gateway(pipeline)),
        (
            "any language",
            f"JSON to the topic {settings.topic_prefix}.steps, key trace_id, partitioner murmur2",
        ),
        ("console", _console(pipeline)),
        ("see runs", "stepstream runs; stepstream trace --last"),
        (
            "query",
            f'stepstream sql "SELECT * FROM runs"; {settings.clickhouse_url}, database '
            f"{settings.clickhouse_database}",
        ),
        (
            "other clients",
            "stepstream store url: the URL with user and password (reads only; --writer: the one "
            "that writes)",
        ),
        (
            "follow alerts",
            f"stepstream alerts --follow; as server-sent events, with a token: {_stream(pipeline)}",
        ),
        (
            "notify people",
            "stepstream subscriptions add NAME CHANNEL ...: webhook, Slack, PagerDuty, e-mail and "
            "more",
        ),
        ("policies", documents),
        (
            "metrics",
            "; ".join(f"{part} {url}" for part, url in pipeline.metrics_urls.items()) or "off",
        ),
        ("content", captured),
        ("data", f"{settings.data_dir} ({free_gb:.1f} GB free)"),
        ("versions", _versions(given, settings)),
    ]


def _stream(pipeline: Pipeline) -> str:
    return f"{pipeline.admin_url}/alerts/stream" if pipeline.admin_url else "off"


def _sasl(settings: Settings) -> str:
    return (
        " and STEPSTREAM_KAFKA_SASL_* as in endpoints.json" if settings.kafka_sasl_mechanism else ""
    )


def _versions(given: Settings, settings: Settings) -> str:
    kafka = "Kafka of your own" if given.kafka_brokers else f"Kafka {KAFKA_VERSION}"
    own = f"stepstream {package_versions()['stepstream']}"
    return (
        f"{own}, {kafka}, ClickHouse {clickhouse_version(settings)}, Python "
        f"{platform.python_version()}"
    )
