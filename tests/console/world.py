"""A whole installation for the console's tests, and pages of it in a browser.

The pipeline is that of ``stepstream up``, each part a process of its own. Agents use the SDK.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    ViewportSize,
    expect,
)

from stepstream.console import address
from stepstream.local.supervisor import Pipeline
from stepstream.producers.control.run_control import Hook
from stepstream.producers.exceptions import RunStopped
from stepstream.producers.tracer import Tracer
from stepstream.sinks.clickhouse import connect
from tests.support.processes import wait_until
from tests.support.sink import encoded, send

SIZE: Final[ViewportSize] = {"width": 1440, "height": 900}
# Not a goal: so that a test on a machine under load does not fail.
WAIT_MS: Final = int(os.environ.get("TS_WAIT_MS", "90000"))
_VIOLATIONS: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
_STEPS_SHOWN: Final = (
    "Number((document.querySelector('.ruler > div')?.innerText ?? '0')"
    ".split(' step')[0].replaceAll(',', ''))"
)


class World:
    """The pipeline and what tests ask it for."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline = pipeline
        self.settings = pipeline.settings
        self.folder = folder

    @property
    def url(self) -> str:
        return self.pipeline.console_url

    def link(self, page: str) -> str:
        """The address that signs a browser in and shows the page."""
        found = address.read(Path(self.settings.state_dir))
        assert found is not None
        return address.link(found, page)

    def tracer(self, agent: str = "support", **settings: Any) -> Tracer:
        given = self.settings.model_copy(
            update={
                "project": "shop",
                "agent": agent,
                "agent_version": "v7",
                "environment": "prod",
                "quiet": True,
                "spool_bytes": 0,
                "state_dir": str(self.folder),
                **settings,
            }
        )
        return Tracer(given)

    def query(self, sql: str) -> list[dict[str, Any]]:
        client = connect(self.settings)
        try:
            return list(client.query(sql).named_results())
        finally:
            client.close()

    def stored(self, trace_id: str, steps: int) -> None:
        """Wait until the store has that many ended steps of a run."""
        sql = (
            f"SELECT count() AS n FROM steps WHERE trace_id = '{trace_id}' AND end_time IS NOT NULL"
        )
        wait_until(lambda: self.query(sql)[0]["n"] >= steps, 60, "the run in the store")

    def closed(self, trace_id: str) -> None:
        """Wait until the run has ended in the store."""
        sql = f"SELECT 1 FROM runs WHERE trace_id = '{trace_id}' AND closed"
        wait_until(lambda: bool(self.query(sql)), 60, "the closed run in the store")

    def alert_of(self, trace_id: str) -> str:
        """The id of an alert about the run, as soon as the store has one."""
        sql = f"SELECT alert_id FROM alerts WHERE trace_id = '{trace_id}'"
        found = wait_until(lambda: self.query(sql), 60, "an alert about the run")
        return str(found[0]["alert_id"])

    def send(self, steps: list[dict[str, Any]], trace_id: str = "") -> str:
        """Send events of one run's steps as they are. Returns its trace id."""
        trace_id = trace_id or uuid.uuid4().hex
        send(self.settings, [(trace_id, encoded({"trace_id": trace_id, **one})) for one in steps])
        return trace_id


def step(number: int, parent: int | None = None, **fields: Any) -> dict[str, Any]:
    """An end event; steps begin a millisecond apart, in the last minutes."""
    start = fields.pop("start", STARTED_US + number * 1_000)
    return {
        "step_id": f"{number + 1:016x}",
        "parent_step_id": "" if parent is None else f"{parent + 1:016x}",
        "phase": "end",
        "kind": "tool_call" if number else "agent",
        "name": f"step {number}",
        "project": "shop",
        "agent": "sender",
        "start_time": start,
        "end_time": fields.pop("end", start + 900),
        **fields,
    }


STARTED_US: Final = time.time_ns() // 1_000 - 300_000_000


class Agent:
    """A run of the SDK in a thread that calls a tool again and again until it is stopped."""

    def __init__(self, world: World, *, on_command: Hook | None = None):
        self._tracer = world.tracer()
        self._on_command = on_command
        self._begun = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.trace_id = ""
        self.calls = 0
        self.stopped: RunStopped | None = None

    def _work(self) -> None:
        fields: dict[str, Any] = {"on_command": self._on_command} if self._on_command else {}
        try:
            with self._tracer.run(task="long", input="work on", **fields) as run:
                self.trace_id = run.trace_id
                self._begun.set()
                while not self._ending.wait(0.05):
                    with run.tool(f"tool {self.calls}", input=f"call {self.calls}") as called:
                        called.set_output({"n": self.calls})
                    self.calls += 1
        except RunStopped as stopped:
            self.stopped = stopped

    def __enter__(self) -> Agent:
        self._thread.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_raised: object) -> None:
        self.end()
        self._tracer.close(30)

    def end(self) -> None:
        """End the run without an error; nothing happens when it has ended."""
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def steps(self) -> int:
        """The steps of the run so far, the run itself included, without those of commands."""
        return self.calls + 1


class Visit:
    """One page of a signed-in browser, and everything that the browser reported about it."""

    def __init__(self, world: World, context: BrowserContext, *, signed_in: bool = False) -> None:
        """``signed_in``: by an earlier visit of the same context."""
        self.world = world
        self.context = context
        self._signed_in = signed_in
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.add_init_script(_VIOLATIONS)
        self.reports: list[str] = []
        self.requests: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("pageerror", lambda error: self.reports.append(f"error {error}"))
        self.page.on("dialog", lambda dialog: self.reports.append(f"dialog {dialog.message}"))
        self.page.on("console", self._reported)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _reported(self, line: ConsoleMessage) -> None:
        if line.type in ("error", "warning"):
            self.reports.append(f"{line.type} {line.text} {line.location.get('url', '')}")

    def open(self, path: str) -> Visit:
        """Open a page; the first one signs in."""
        if self._signed_in:
            self.page.goto(self.world.url + path)
        else:
            self.page.goto(self.world.link(path))
            self._signed_in = True
        return self

    def text(self, text: str) -> Locator:
        """The first element with the text, as soon as it is visible."""
        found = self.page.get_by_text(text).locator("visible=true").first
        found.wait_for()
        return found

    def gone(self, text: str) -> None:
        """Wait until no element with the text is visible."""
        self.page.get_by_text(text).locator("visible=true").first.wait_for(state="hidden")

    def live(self) -> None:
        """Wait until the mark at the top states that the data is current."""
        self.until("document.querySelector('.livestate')?.innerText.startsWith('Live')")

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def enabled(self, name: str) -> None:
        """Wait until a button is enabled: its key is ignored while the session is not read yet."""
        expect(self.button(name).first).to_be_enabled(timeout=WAIT_MS)

    def rows(self) -> Locator:
        return self.page.locator("[role=treeitem]")

    def selected(self) -> str:
        """The name of the selected step of a run."""
        found = self.page.locator("[aria-selected=true]").first
        found.wait_for()
        return found.locator(".label b").inner_text()

    def steps_shown(self) -> int:
        """The number of steps that the page of a run states; 0 before there are any."""
        return int(self.page.evaluate(_STEPS_SHOWN))

    def until_steps(self, comparison: str) -> None:
        """Wait until the number of steps of a run's page is so, for example ``> 10``."""
        self.until(f"{_STEPS_SHOWN} {comparison}")

    def until(self, script: str) -> None:
        """Wait until an expression of JavaScript is true.

        Playwright's own wait evaluates the text in the page, and the page's policy refuses that.
        """
        deadline = time.monotonic() + WAIT_MS / 1_000
        while True:
            found: object
            try:
                found = self.page.evaluate(script)
                if found:
                    return
            except Error as error:  # what it reads is not there yet, or the page changes
                found = error
            assert time.monotonic() < deadline, f"not within {WAIT_MS} ms: {script}; {found}"
            self.page.wait_for_timeout(50)

    def serious(self) -> list[tuple[str, str]]:
        """What axe finds with the impact serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        # The page's policy refuses scripts, so axe comes by the browser's own protocol.
        found = Axe().run(self.page).response["violations"]
        return [
            (one["id"], one["nodes"][0]["html"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def screenshot(self, name: str) -> None:
        """Write a picture, if the variable STEPSTREAM_SCREENSHOTS names a folder."""
        folder = os.environ.get("STEPSTREAM_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"console-{name}.png")

    def check(self) -> None:
        """Nothing was reported, refused by the policy, or asked of another address."""
        violations = self.page.evaluate("window.violations || []")
        assert violations == [], violations
        foreign = [one for one in self.requests if not one.startswith(self._own)]
        assert foreign == [], foreign
        left = [one for one in self.reports if not any(text in one for text in self.expected)]
        assert left == [], left

    @property
    def _own(self) -> tuple[str, ...]:
        return (self.world.url, "blob:", "data:")


@contextmanager
def visiting(world: World, browser: Browser, **options: Any) -> Iterator[Visit]:
    """A visit in a context of its own, checked at its end."""
    context = browser.new_context(**{"viewport": SIZE, **options})
    visit = Visit(world, context)
    try:
        yield visit
        visit.check()
    finally:
        context.close()


@contextmanager
def signed_in(world: World, browser: Browser) -> Iterator[BrowserContext]:
    """A context with a session and the parts of the pages in its cache."""
    # An animation that never ends would be drawn by the CPU, 60 times a second.
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    first = Visit(world, context)
    first.open("/system")
    first.page.locator("h1").first.wait_for()
    first.page.close()
    try:
        yield context
    finally:
        context.close()


@contextmanager
def visiting_again(world: World, context: BrowserContext) -> Iterator[Visit]:
    """A visit in a context of ``signed_in``, checked at its end: a page of its own."""
    visit = Visit(world, context, signed_in=True)
    try:
        yield visit
        visit.check()
    finally:
        visit.page.close()


def in_threads(*works: Callable[[], None]) -> None:
    """Do each in a thread of its own, because Playwright's event loop runs in this one."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive()


def asked(world: World, visit: Visit, method: str, path: str, **given: Any) -> Any:
    """An answer of the console's API to the signed-in browser: its status and JSON."""
    got = visit.context.request.fetch(
        world.url + path,
        method=method,
        headers=given.get("headers", {}),
        data=given.get("data"),
        max_redirects=0,
    )
    try:
        return got.status, json.loads(got.text())
    except ValueError:
        return got.status, got.text()
