"""An ordinary step of our SDK and of OpenTelemetry, Langfuse and Logfire.

Each SDK runs in a process of its own and exports over HTTP to a receiver here that takes
everything. The runs alternate, and of each figure the best run counts: other programs make figures
worse, never better.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.harness import NOT_INSTALLED, Goal, Report
from benchmarks.peers import Peer
from benchmarks.peers.sdk_step import SDKS
from stepstream.common.web.server import WebServer
from stepstream.producers.gateway.otlp import protobuf
from tests.support.paths import ROOT

SCRIPT: Final = "sdk_step.py"
OURS: Final = "stepstream"
PEERS: Final = (
    Peer(
        "OpenTelemetry",
        SCRIPT,
        ("opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-http==1.45.2"),
    ),
    Peer("Langfuse", SCRIPT, ("langfuse==5.0.4",)),
    Peer("Logfire", SCRIPT, ("logfire==5.4.0",)),
)
LOADS: Final = ("burst", "1,000/s")
FIGURES: Final = ("p50_us", "p99_us", "max_us", "cpu_us")
MOST_OF_OPENTELEMETRY: Final = 1 / 3
P99_US: Final = 50.0


def install() -> None:
    """Install the other SDKs."""
    for peer in PEERS:
        peer.install()


class Receiver:
    """Takes every request. ``bodies`` are those of OTLP, ``events`` the number of our events."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.events = 0
        self._lock = threading.Lock()
        self.url = ""

    def take(self, path: str, body: bytes) -> bytes:
        """The answer to a request."""
        with self._lock:
            if path.endswith("/v1/steps"):
                count = body.count(b"\n") + 1
                self.events += count
                return b'{"accepted":%d,"rejected":0}' % count
            if path.endswith("/v1/traces"):
                self.bodies.append(body)
                return b""
        return b"{}"

    def received(self) -> int:
        """Steps: spans of OTLP, and ended ones of ours."""
        return sum(1 for body in self.bodies for _ in protobuf.spans(body)) + self.events // 2


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver at an address of its own."""
    found = Receiver()

    async def respond(request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return Response(found.take(request.url.path, body))

    routes = [Route("/{path:path}", respond, methods=["POST", "GET"])]
    server = WebServer(Starlette(routes=routes), "127.0.0.1", 0, grace_s=1)
    server.start("receiver")
    found.url = server.url
    try:
        yield found
    finally:
        server.close()


def measured(name: str, python: str, burst: int, paced: int) -> dict[str, Any]:
    """One process of an SDK."""
    script = str(ROOT / "benchmarks" / "peers" / SCRIPT)
    kept = {key: text for key, text in os.environ.items() if "STEPSTREAM" not in key}
    environment = {**kept, "PYTHONPATH": str(ROOT)} if name == OURS else kept
    with receiving() as receiver:
        command = [python, script, name, receiver.url, str(burst), str(paced)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2_000:]}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        result["lost"] = max(0, result["sent"] - receiver.received())
        return result


def best(results: list[dict[str, Any]], load: str, figure: str) -> float:
    """The best of several runs."""
    return min(float(result[load][figure]) for result in results)


def compare_with_others(report: Report, rounds: int) -> None:
    """The table, the ratios and the goals."""
    pythons = {peer.name: str(peer.python) for peer in PEERS if peer.installed}
    pythons[OURS] = sys.executable
    burst, paced = (4_000, 1_000) if report.quick else (20_000, 10_000)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    # In turns, so that all of them meet the same machine.
    for _ in range(1 if report.quick else 3):
        for name, python in pythons.items():
            found[name].append(measured(name, python, burst, paced))
    rows: list[tuple[float | str | None, ...]] = []
    for load in LOADS:
        for name in SDKS:
            results = found.get(name)
            if not results:
                rows.append((name, load, None, None, None, None, NOT_INSTALLED))
                continue
            lost = min(result["lost"] for result in results)
            rows.append((name, load, *(best(results, load, one) for one in FIGURES), lost))
    columns = ("SDK", "load", "p50 us", "p99 us", "maximum us", "CPU us a step", "steps lost")
    report.table("A step in the agent's thread, and CPU of all threads", columns, rows)
    _goals(report, found)


def _goals(report: Report, found: dict[str, list[dict[str, Any]]]) -> None:
    ours = found[OURS]
    for load in LOADS:
        key = load.replace(",", "").replace("/", "_")
        report.figures[f"{key}_p50_us"] = best(ours, load, "p50_us")
        report.figures[f"{key}_p99_us"] = best(ours, load, "p99_us")
        report.figures[f"{key}_cpu_us"] = best(ours, load, "cpu_us")
        others = {name: results for name, results in found.items() if name != OURS}
        otel = others.get("OpenTelemetry")
        share = None if otel is None else best(ours, load, "p50_us") / best(otel, load, "p50_us")
        if share is not None:
            report.ratios[f"p50 to OpenTelemetry, {load}"] = share
        cpu = min((best(results, load, "cpu_us") for results in others.values()), default=None)
        report.goals += [
            Goal(f"p50 as a share of OpenTelemetry's, {load}", share, MOST_OF_OPENTELEMETRY, ""),
            Goal(f"p99 of a step, {load}", best(ours, load, "p99_us"), P99_US, "us"),
        ]
        if cpu is not None:
            mine = best(ours, load, "cpu_us")
            report.goals.append(
                Goal(f"CPU of all threads below every other, {load}", mine, cpu, "us")
            )
    lost = max(result["lost"] + result["dropped_events"] for result in ours)
    report.goals.append(Goal("steps lost", lost, 0, "steps"))
