"""The console in Chromium: time to the first rows, frames while scrolling and while steps arrive,
time from an event to the screen, and what viewers cost.

``python -m benchmarks.console first|frames|live|silent|page|axe``: one part a figure; all without.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from confluent_kafka import Producer

from benchmarks import harness
from benchmarks.bench import scratch_folder
from benchmarks.harness import Goal, Report, percentile
from benchmarks.machine import CpuMeter, pss_bytes
from stepstream.common.settings import load
from stepstream.console import address
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect

PARTS: Final = ("page", "first", "frames", "live", "silent", "axe")
FIRST_GOALS_MS: Final = {10_000: 500.0, 50_000: 1_500.0}
RUNS: Final = 10
VIEWERS: Final = 50
PAGES: Final = ("/", "/runs", "/alerts", "/cost", "/system")
MIB: Final = 2**20
_FIRST_ROW: Final = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("[role=treeitem]")) return;
  observer.disconnect();
  const note = () => { window.firstRow = performance.now(); };
  requestAnimationFrame(() => requestAnimationFrame(note));
}).observe(document, { childList: true, subtree: true });
"""
# What is drawn at each frame in which the number of steps has changed: the time and the number.
_SHOWN: Final = """
window.shown = [];
let before = "";
const note = () => {
  const text = document.querySelector(".ruler > div")?.textContent ?? "";
  if (text !== before) {
    before = text;
    const steps = Number(text.trim().split(" ")[0].replaceAll(",", ""));
    requestAnimationFrame(() => window.shown.push([Date.now(), steps]));
  }
  requestAnimationFrame(note);
};
requestAnimationFrame(note);
"""


class Installation:
    """A pipeline, its console, a browser that is signed in, and steps to send."""

    def __init__(self, pipeline: Pipeline, browser: Any) -> None:
        self.pipeline = pipeline
        self.settings = pipeline.settings
        self.url = pipeline.console_url
        self.context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.browser = browser
        self._topic = topic(self.settings.topic_prefix, "steps")
        self._producer = Producer(
            {**self.settings.kafka, "partitioner": "murmur2_random", "linger.ms": 2}
        )
        page = self.context.new_page()
        page.goto(self.link("/system"))
        page.get_by_text("This console").first.wait_for()
        page.close()

    def link(self, path: str) -> str:
        found = address.read(Path(self.settings.state_dir))
        assert found is not None
        return address.link(found, path)

    @property
    def cookie(self) -> str:
        return "; ".join(f"{one['name']}={one['value']}" for one in self.context.cookies())

    def send(self, event: dict[str, Any]) -> None:
        """Queue an event; what the producer's queue has no room for is sent first."""
        value = json.dumps(event).encode()
        while True:
            with suppress(BufferError):
                self._producer.produce(
                    self._topic, value, event["trace_id"].encode(), headers=[*RECORD_HEADERS]
                )
                self._producer.poll(0)
                return
            self._producer.poll(0.05)

    def flush(self) -> None:
        self._producer.flush(60)

    def run_of(self, steps: int) -> str:
        """A run with so many ended steps, in the store."""
        trace_id = uuid.uuid4().hex
        start_us = time.time_ns() // 1_000 - 120_000_000
        for number in range(steps):
            self.send(event(trace_id, number, start_us + number * 1_000))
        self.flush()
        client = connect(self.settings)
        sql = f"SELECT count() FROM steps WHERE trace_id = '{trace_id}'"
        try:
            while client.query(sql).result_rows[0][0] < steps:
                time.sleep(0.5)
        finally:
            client.close()
        return trace_id


def event(trace_id: str, number: int, now_us: int, **fields: Any) -> dict[str, Any]:
    """An end event below the root, which is number 0."""
    kind = ("llm_call", "tool_call", "retrieval", "plan")[number % 4] if number else "agent"
    return {
        "trace_id": trace_id,
        "step_id": f"{number + 1:016x}",
        "parent_step_id": f"{1:016x}" if number else "",
        "phase": "end",
        "kind": kind,
        "name": f"step {number}",
        "project": "shop",
        "agent": "bench",
        "start_time": now_us,
        "end_time": now_us + 800,
        **fields,
    }


class Load:
    """Steps of several open runs at a rate, from a thread; ``sent_ms`` has when each step of the
    first run was sent."""

    def __init__(self, installation: Installation, per_s: float, runs: int) -> None:
        self._installation = installation
        self._per_s = per_s
        self.trace_ids = [uuid.uuid4().hex for _ in range(runs)]
        self.sent_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        now_us = time.time_ns() // 1_000
        for trace_id in self.trace_ids:
            root = event(trace_id, 0, now_us, phase="start", end_time=None)
            self._installation.send(root)
        self.sent_ms.append(now_us / 1_000)
        self._installation.flush()
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop.set()
        self._thread.join()
        self._installation.flush()

    def _work(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.wait(0.01):
            due = int((time.monotonic() - began) * self._per_s)
            for number in range(sent, due):
                run, step = number % len(self.trace_ids), number // len(self.trace_ids) + 1
                now_us = time.time_ns() // 1_000
                self._installation.send(event(self.trace_ids[run], step, now_us))
                if run == 0:
                    self.sent_ms.append(now_us / 1_000)
            sent = due


class Viewers:
    """Open streams of the console over runs, read and thrown away by one thread."""

    def __init__(
        self, installation: Installation, trace_ids: list[str], number: int, *, reads: bool = True
    ) -> None:
        self._sockets = [
            self._open(installation, trace_ids[n % len(trace_ids)]) for n in range(number)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.received = 0
        if reads:
            self._thread.start()

    @staticmethod
    def _open(installation: Installation, trace_id: str) -> socket.socket:
        where = urlsplit(installation.url)
        opened = socket.create_connection((where.hostname or "", where.port or 80))
        request = (
            f"GET /api/v1/live?run={trace_id}&alerts=1 HTTP/1.1\r\nHost: {where.netloc}\r\n"
            f"Cookie: {installation.cookie}\r\nAccept: text/event-stream\r\n\r\n"
        )
        opened.sendall(request.encode())
        return opened

    def _read(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select(self._sockets, [], [], 0.2)
            for one in ready:
                self.received += len(one.recv(65_536))

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for one in self._sockets:
            one.close()


# --- the parts ---


def page(report: Report, at: Installation) -> None:
    """What the first page takes over the network, compressed, without data."""
    opened = at.browser.new_context().new_page()
    sizes: list[int] = []

    def note(request: Any) -> None:
        if "/api/" not in request.url and "/login" not in request.url:
            sizes.append(request.sizes()["responseBodySize"])

    opened.on("requestfinished", note)
    opened.goto(at.link("/"))
    opened.get_by_text("Just ended").first.wait_for()
    opened.context.close()
    report.figures["first_page_gz_kb"] = kib = sum(sizes) / 1_024
    report.goals.append(Goal("first page, gz", kib, 120, "KB"))


def first(report: Report, at: Installation) -> None:
    """From opening a run's address to its first rows on the screen; the best and the median."""
    rows = []
    for steps, goal_ms in FIRST_GOALS_MS.items():
        trace_id = at.run_of(steps)
        times = []
        for _ in range(4 if report.quick else 12):
            opened = at.context.new_page()
            opened.add_init_script(_FIRST_ROW)
            opened.goto(f"{at.url}/runs/{trace_id}")
            # Not wait_for_function: the page's policy refuses what that evaluates.
            while opened.evaluate("window.firstRow") is None:
                opened.wait_for_timeout(50)
            times.append(float(opened.evaluate("window.firstRow")))
            shown = opened.locator(".ruler > div").first.inner_text()
            opened.close()
        if not shown.startswith(f"{steps:,} steps"):
            report.wrong.append(f"{steps} steps were sent and the page shows {shown}")
        warm = times[1:]
        middle = percentile(warm, 0.5)
        rows.append((f"{steps:,}", min(warm), middle, max(warm)))
        report.figures[f"first_rows_{steps}_ms"] = middle
        report.goals.append(Goal(f"{steps:,} steps, first rows, median", middle, goal_ms, "ms"))
    report.table("first rows, warm", ("steps", "best ms", "median ms", "worst ms"), rows)


def frames(report: Report, at: Installation) -> None:
    """The main thread's work a frame, by a trace of the browser.

    While 50,000 steps are scrolled, and while 100 steps a second arrive.
    """
    opened = at.context.new_page()
    opened.goto(f"{at.url}/runs/{at.run_of(50_000)}")
    opened.get_by_text("50,000 steps").first.wait_for()
    box = opened.locator("[role=tree]").bounding_box()
    opened.mouse.move(box["x"] + 300, box["y"] + 200)
    scrolling = _traced(at, opened, lambda: _scroll(opened, 3 if report.quick else 10))
    nodes = int(opened.evaluate("document.querySelectorAll('*').length"))
    opened.close()
    with Load(at, 100, 1) as load:
        opened = at.context.new_page()
        opened.goto(f"{at.url}/runs/{load.trace_ids[0]}")
        opened.locator("[role=treeitem]").nth(5).wait_for()
        opened.keyboard.press("l")
        arriving = _traced(
            at, opened, lambda: opened.wait_for_timeout(4_000 if report.quick else 15_000)
        )
        opened.close()
    rows = []
    for name, work in (("scrolling", scrolling), ("arriving", arriving)):
        p95 = percentile(work, 0.95)
        rows.append((name, len(work), percentile(work, 0.5), p95, max(work)))
        report.figures[f"{name}_p95_ms"], report.figures[f"{name}_longest_ms"] = p95, max(work)
        report.goals.append(Goal(f"script, layout and paint a frame, p95, {name}", p95, 8, "ms"))
        report.goals.append(Goal(f"longest frame, {name}", max(work), 50, "ms"))
    report.table("main thread", ("while", "frames", "p50 ms", "p95 ms", "longest ms"), rows)
    report.figures["dom_nodes_50000"] = nodes
    report.goals.append(Goal("DOM nodes at 50,000 steps", nodes, 1_500, ""))


def _scroll(opened: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    down = True
    while time.monotonic() < until:
        opened.mouse.wheel(0, 900 if down else -700)
        down = not down if time.monotonic() % 2 < 0.02 else down


def _traced(at: Installation, opened: Any, work: Callable[[], object]) -> list[float]:
    """Milliseconds of the page's main thread in each frame of ``work``."""
    at.browser.start_tracing(page=opened, categories=["devtools.timeline", "toplevel"])
    work()
    events = json.loads(at.browser.stop_tracing())["traceEvents"]
    main = {
        (one["pid"], one["tid"])
        for one in events
        if one.get("name") == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    by_thread: dict[Any, list[tuple[float, float]]] = {}
    starts: dict[Any, list[float]] = {}
    for one in events:
        key = (one["pid"], one["tid"])
        if key not in main:
            continue
        if one["name"] == "RunTask" and one["ph"] == "X":
            by_thread.setdefault(key, []).append((one["ts"], one.get("dur", 0)))
        elif one["name"] == "BeginMainThreadFrame":
            starts.setdefault(key, []).append(one["ts"])
    if not starts:
        return []
    # The page that is traced is the one that draws.
    busiest = max(starts, key=lambda key: len(starts[key]))
    limits = sorted(starts[busiest])
    spent = [0.0] * len(limits)
    frame = 0
    for ts, dur in sorted(by_thread.get(busiest, [])):
        while frame + 1 < len(limits) and limits[frame + 1] <= ts + dur / 2:
            frame += 1
        if ts + dur >= limits[0]:
            spent[frame] += dur / 1_000
    return spent


def live(report: Report, at: Installation) -> None:
    """From an event being produced to the screen, with 50 viewers of ten runs; and what the console
    takes meanwhile."""
    rows = []
    for per_s in (1_000,) if report.quick else (1_000, 5_000):
        with Load(at, per_s, RUNS) as load:
            time.sleep(2)
            viewers = Viewers(at, load.trace_ids, VIEWERS)
            opened = at.context.new_page()
            opened.goto(f"{at.url}/runs/{load.trace_ids[0]}")
            opened.locator("[role=treeitem]").nth(5).wait_for()
            opened.keyboard.press("l")
            opened.wait_for_timeout(3_000)
            opened.evaluate(_SHOWN)
            meter = CpuMeter({"console": at.pipeline.pids()["console"]})
            seconds = 10 if report.quick else 30
            began = time.monotonic()
            opened.wait_for_timeout(seconds * 1_000)
            cpu = 100 * meter.lap()["console"] / (time.monotonic() - began)
            memory = pss_bytes(at.pipeline.pids()["console"]) / MIB
            shown = opened.evaluate("window.shown")
            opened.close()
            viewers.close()
        late = _latencies(load.sent_ms, shown)
        p50, p99 = percentile(late, 0.5), percentile(late, 0.99)
        rows.append((f"{per_s:,}", len(late), p50, p99, memory, cpu))
        name = f"live_{per_s}"
        report.figures |= {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99}
        report.figures |= {f"{name}_console_mb": memory, f"{name}_console_cpu_percent": cpu}
        if per_s == 1_000:
            report.goals += [
                Goal("event to screen, p50", p50, 300, "ms"),
                Goal("event to screen, p99", p99, 1_000, "ms"),
                Goal("console's memory with 50 viewers", memory, 150, "MB"),
                Goal("console's CPU with 50 viewers", cpu, 20, "% of a core"),
            ]
    columns = ("steps/s", "measured", "p50 ms", "p99 ms", "console MB", "console %")
    report.table(f"{VIEWERS} viewers of {RUNS} runs, one browser", columns, rows)


def _latencies(sent_ms: list[float], shown: list[tuple[float, int]]) -> list[float]:
    """Milliseconds from sending to the frame, of each step that appeared while it was measured."""
    found = []
    for (_, before), (at_ms, steps) in pairwise(shown):
        found += [at_ms - sent_ms[n] for n in range(before, min(steps, len(sent_ms)))]
    return found


def silent(report: Report, at: Installation) -> None:
    """Memory of the console while a viewer reads nothing."""
    seconds = 60 if report.quick else 600
    with Load(at, 1_000, RUNS) as load:
        time.sleep(2)
        reading = Viewers(at, load.trace_ids, 5)
        time.sleep(20)
        deaf = Viewers(at, load.trace_ids, 1, reads=False)
        sizes = []
        for _ in range(10):
            sizes.append(pss_bytes(at.pipeline.pids()["console"]) / MIB)
            time.sleep(seconds / 10)
        sizes.append(pss_bytes(at.pipeline.pids()["console"]) / MIB)
        deaf.close()
        reading.close()
    grown = sizes[-1] - sizes[2]
    report.table(
        "console's memory", ("at %", "MB"), [(f"{n * 10}", s) for n, s in enumerate(sizes)]
    )
    report.figures["silent_viewer_grown_mb"] = grown
    report.goals.append(Goal("growth with a viewer that reads nothing", grown, 5, "MB"))


def axe(report: Report, at: Installation) -> None:
    """Serious and critical violations that axe finds on the pages."""
    from axe_playwright_python.sync_playwright import Axe

    found = 0
    opened = at.context.new_page()
    for path in (*PAGES, f"/runs/{at.run_of(200)}"):
        opened.goto(at.url + path)
        opened.locator("h1").first.wait_for(state="attached")
        opened.wait_for_load_state("networkidle") if path == "/cost" else opened.wait_for_timeout(
            1_500
        )
        violations = Axe().run(opened).response["violations"]
        found += sum(one["impact"] in ("serious", "critical") for one in violations)
    opened.close()
    report.figures["axe_serious"] = found
    report.goals.append(Goal("serious axe violations", found, 0, ""))


_MEASURES: Final[dict[str, Callable[[Report, Installation], None]]] = {
    "page": page,
    "first": first,
    "frames": frames,
    "live": live,
    "silent": silent,
    "axe": axe,
}


@contextmanager
def installed() -> Iterator[Installation]:
    """A pipeline on this machine and a browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    with scratch_folder() as folder, sync_playwright() as playwright:
        settings = load(
            environ={},
            file=Path(os.devnull),
            state_dir=str(folder),
            data_dir=str(folder / "data"),
        )
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with Pipeline(settings) as pipeline:
            yield Installation(pipeline, browser)
        browser.close()


def measure(report: Report, arguments: argparse.Namespace) -> None:
    with installed() as at:
        for name in arguments.parts or PARTS:
            report.progress(name)
            _MEASURES[name](report, at)


if __name__ == "__main__":
    options = harness.parser(__doc__ or "")
    options.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure")
    harness.run("console", measure, options)
