"""Runs the parts that are named, or all of them, on one installation."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from benchmarks import harness
from benchmarks.console import PARTS
from benchmarks.console.frames import work_of_frames
from benchmarks.console.installation import Installation, Load, installed, wait_for
from benchmarks.console.viewers import Viewers
from benchmarks.harness import Goal, Report, percentile
from benchmarks.machine import CpuMeter, pss_bytes

FIRST_GOALS_MS: Final = {10_000: 500.0, 50_000: 1_500.0}
LARGE: Final = 50_000
RUNS: Final = 10
VIEWERS: Final = 50
PAGES: Final = ("/", "/runs", "/alerts", "/cost", "/releases", "/ask", "/system")
MIB: Final = 2**20
# The rows are on the screen after the frame that follows the one in which they were made.
_FIRST_ROW: Final = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("[role=treeitem]")) return;
  observer.disconnect();
  const note = () => { window.firstRow = performance.now(); };
  requestAnimationFrame(() => requestAnimationFrame(note));
}).observe(document, { childList: true, subtree: true });
"""
# Time and number of steps of each frame in which the number is another one than before.
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
_HAS_ROWS: Final = "document.querySelectorAll('[role=treeitem]').length > 5"


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
    kb = sum(sizes) / 1_000
    report.figures["first_page_gz_kb"] = kb
    report.goals.append(Goal("first page, gz", kb, 120, "KB"))


def first(report: Report, at: Installation) -> None:
    """From opening a run's address to its first rows on the screen."""
    rows = []
    for steps, goal_ms in FIRST_GOALS_MS.items():
        trace_id = at.run_of(steps)
        times = []
        for _ in range(4 if report.quick else 12):
            opened = at.context.new_page()
            opened.add_init_script(_FIRST_ROW)
            opened.goto(f"{at.url}/runs/{trace_id}")
            wait_for(opened, "window.firstRow !== undefined")
            times.append(float(opened.evaluate("window.firstRow")))
            shown = opened.locator(".ruler > div").first.inner_text()
            opened.close()
        if not shown.startswith(f"{steps:,} steps"):
            report.wrong.append(f"{steps} steps were sent and the page shows {shown}")
        # The first one fills the caches of browser and store.
        warm = times[1:]
        middle = percentile(warm, 0.5)
        rows.append((f"{steps:,}", min(warm), middle, max(warm)))
        report.figures[f"first_rows_{steps}_ms"] = middle
        report.goals.append(Goal(f"{steps:,} steps, first rows, median", middle, goal_ms, "ms"))
    report.table("first rows, warm", ("steps", "best ms", "median ms", "worst ms"), rows)


def frames(report: Report, at: Installation) -> None:
    """The main thread's work a frame: while 50,000 steps are scrolled, and while 100 steps a second
    arrive."""
    opened = at.context.new_page()
    opened.goto(f"{at.url}/runs/{at.run_of(LARGE)}")
    wait_for(opened, _HAS_ROWS)
    box = opened.locator("[role=tree]").bounding_box()
    opened.mouse.move(box["x"] + 300, box["y"] + 200)
    seconds = 3 if report.quick else 10
    scrolling = work_of_frames(at.browser, opened, lambda: _scroll(opened, seconds))
    nodes = int(opened.evaluate("document.querySelectorAll('*').length"))
    opened.close()
    with Load(at, 100, 1) as load:
        opened = at.context.new_page()
        opened.goto(f"{at.url}/runs/{load.trace_ids[0]}")
        wait_for(opened, _HAS_ROWS)
        opened.keyboard.press("l")
        arriving = work_of_frames(
            at.browser, opened, lambda: opened.wait_for_timeout(4_000 if report.quick else 15_000)
        )
        opened.close()
    rows: list[tuple[str, int, float, float, float]] = []
    for name, work in (("scrolling", scrolling), ("arriving", arriving)):
        if not work:
            report.wrong.append(f"the trace of {name} has no frame")
            continue
        p95 = percentile(work, 0.95)
        rows.append((name, len(work), percentile(work, 0.5), p95, max(work)))
        report.figures[f"{name}_p95_ms"], report.figures[f"{name}_longest_ms"] = p95, max(work)
        report.goals.append(Goal(f"script, layout and paint a frame, p95, {name}", p95, 8, "ms"))
        report.goals.append(Goal(f"longest frame, {name}", max(work), 50, "ms"))
    report.table("main thread", ("while", "frames", "p50 ms", "p95 ms", "longest ms"), rows)
    report.figures["dom_nodes_50000"] = nodes
    report.goals.append(Goal("DOM nodes at 50,000 steps", nodes, 1_500, ""))


def _scroll(opened: Any, seconds: float) -> None:
    """Down and up again, with a wheel."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        opened.mouse.wheel(0, 900 if passed < seconds * 0.7 else -700)


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
            wait_for(opened, _HAS_ROWS)
            opened.keyboard.press("l")
            opened.wait_for_timeout(3_000)
            opened.evaluate(_SHOWN)
            meter = CpuMeter({"console": at.console_pids})
            began = time.monotonic()
            opened.wait_for_timeout(10_000 if report.quick else 30_000)
            cpu = 100 * meter.lap()["console"] / (time.monotonic() - began)
            memory = pss_bytes(at.console_pids) / MIB
            shown = opened.evaluate("window.shown")
            opened.close()
            viewers.close()
        late = _latencies(load.sent_ms, shown)
        if not late:
            report.wrong.append(f"no step appeared at {per_s:,} steps/s")
            continue
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
    """Memory of the console while a viewer reads nothing, from when its buffers are full."""
    seconds = 60 if report.quick else 600
    with Load(at, 1_000, RUNS) as load:
        time.sleep(2)
        reading = Viewers(at, load.trace_ids, 5)
        time.sleep(20)
        silent_one = Viewers(at, load.trace_ids, 1, reads=False)
        sizes = []
        for _ in range(10):
            sizes.append(pss_bytes(at.console_pids) / MIB)
            time.sleep(seconds / 10)
        sizes.append(pss_bytes(at.console_pids) / MIB)
        silent_one.close()
        reading.close()
    grown = sizes[-1] - sizes[2]
    report.table(
        "console's memory", ("at %", "MB"), [(f"{n * 10}", size) for n, size in enumerate(sizes)]
    )
    report.figures["silent_viewer_grown_mb"] = grown
    # Five of 150 MB: what an allocator keeps varies by this much.
    report.goals.append(Goal("growth with a viewer that reads nothing", grown, 5, "MB"))


def axe(report: Report, at: Installation) -> None:
    """Serious and critical violations that axe finds on the pages."""
    from axe_playwright_python.sync_playwright import Axe

    found = 0
    opened = at.context.new_page()
    for path in (*PAGES, f"/runs/{at.run_of(200)}"):
        opened.goto(at.url + path)
        opened.locator("h1").first.wait_for(state="attached")
        wait_for(opened, "!document.querySelector('.ghost')")
        violations = Axe().run(opened).response["violations"]
        serious = [one["id"] for one in violations if one["impact"] in ("serious", "critical")]
        report.notes += [f"{path}: {name}" for name in serious]
        found += len(serious)
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


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Start an installation and run each part on it."""
    with installed() as at:
        for name in arguments.parts or PARTS:
            report.progress(name)
            _MEASURES[name](report, at)


def flags() -> argparse.ArgumentParser:
    """The flags of every benchmark, and the names of the parts."""
    listed = "\n".join(f"  {name:8} {what}" for name, what in PARTS.items())
    made = harness.parser(f"The console in Chromium.\n\nparts:\n{listed}")
    made.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help="what to measure (default: all)",
    )
    return made


if __name__ == "__main__":
    harness.run("console", measure, flags())
