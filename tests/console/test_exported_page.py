"""A run in a browser: large, malformed and hostile runs are drawn, and nothing in them runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from stepstream.console import export

START_US: Final = 1_796_040_000_000_000
HOSTILE: Final = (
    "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    "\u202egnp.exe\u202c \x1b[31m \x00 {{7*7}} javascript:alert(1)"
)
FIRST_ROW_MS: Final = 60_000  # not a goal: so that a test on a machine under load does not fail


class Opened:
    """A written page in the browser, with what the browser reported."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.reports: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.reports.append(str(error)))
        page.on("dialog", lambda dialog: self.reports.append(f"dialog {dialog.message}"))
        page.on("console", lambda line: self.reports.append(line.text))
        page.on("request", lambda request: self.requests.append(request.url))

    def key(self, key: str) -> None:
        self.page.keyboard.press(key)

    def selected(self) -> str:
        return self.page.locator("[aria-selected=true]").get_attribute("data-id") or ""


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})

    def open_run(
        steps: list[dict[str, Any]], run: dict[str, Any] | None = None, **given: Any
    ) -> Opened:
        head = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "status": "ok", **(run or {})}
        head = {"start_time": START_US, "end_time": START_US + 60_000_000, **head}
        text = export.page(
            head, steps, written_at_us=START_US + 90_000_000, contents=given.get("contents", False)
        )
        file = tmp_path / "run.html"
        file.write_text(text, encoding="utf-8")
        found = Opened(context.new_page())
        found.page.goto(file.as_uri())
        found.page.wait_for_selector("[role=treeitem]", timeout=FIRST_ROW_MS)
        return found

    yield open_run
    context.close()


def step(number: int, parent: str = "", **fields: Any) -> dict[str, Any]:
    start = fields.pop("start", START_US + number * 1000)
    return {
        "step_id": f"{number:016x}",
        "parent_step_id": parent,
        "kind": "tool_call",
        "name": f"step {number}",
        "tool": "",
        "model": "",
        "start_time": start,
        "end_time": start + 900,
        "status": "ok",
        "error_type": "",
        "error_message": "",
        "input": "",
        "output": "",
        **fields,
    }


def test_nothing_in_a_hostile_run_runs(opened: Any) -> None:
    texts = dict.fromkeys(("name", "tool", "error_type", "error_message", "input"), HOSTILE)
    steps = [step(1, kind=HOSTILE, model=HOSTILE, status="error", output=HOSTILE, **texts)]
    steps[0]["documents"] = [(HOSTILE, 0.5, HOSTILE)]
    steps[0]["attributes"] = {HOSTILE: HOSTILE}
    run = dict.fromkeys(("agent", "task", "name", "user_id", "session_id", "status"), HOSTILE)
    page = opened(steps, run, contents=True)
    page.page.get_by_text("⟦RLO⟧gnp.exe").first.wait_for()
    assert page.page.evaluate("window.ran") is None
    assert page.page.locator("img").count() == 0
    assert page.reports == []
    assert [url for url in page.requests if not url.startswith("file:")] == []


def test_fifty_thousand_steps_are_drawn_in_few_elements(opened: Any) -> None:
    root = step(0, kind="agent", end_time=START_US + 60_000_000)
    steps = [root, *(step(n, root["step_id"]) for n in range(1, 50_000))]
    page = opened(steps)
    assert page.page.locator(".ruler").get_by_text("50,000 steps").count() == 1
    assert page.page.evaluate("document.querySelectorAll('*').length") < 1_500
    page.key("End")
    page.page.wait_for_selector("[aria-selected=true]")
    assert page.selected() == f"{49_999:016x}"
    assert page.page.evaluate("document.querySelectorAll('*').length") < 1_500


def test_malformed_trees_are_drawn_and_marked(opened: Any) -> None:
    ids = [f"{n:016x}" for n in range(10)]
    steps = [
        step(1),
        step(2, "f" * 16),  # its parent never came
        step(3, ids[4]),
        step(4, ids[3]),  # parents in a circle
        step(5),  # another root
        step(6, ids[1], start=START_US + 5_000, end_time=START_US),  # ends before it starts
        step(7, ids[1], end_time=None, status=""),  # never ended
    ]
    page = opened(steps)
    rows = page.page.locator("[role=treeitem]")
    assert rows.count() == len(steps)
    for text in ("parent missing", "parents in a circle", "another root", "before it starts"):
        assert page.page.get_by_text(text).count() >= 1, text
    assert page.reports == []


def test_1400_levels_are_drawn(opened: Any) -> None:
    steps = [step(n, f"{n - 1:016x}" if n else "") for n in range(1_400)]
    page = opened(steps)
    page.key("End")
    page.page.wait_for_selector("[aria-level='1400']")


def test_ten_megabytes_are_shown_in_parts(opened: Any) -> None:
    page = opened([step(1, output="0123456789abcdef" * 655_360)], contents=True)
    page.page.get_by_text("part 1 of 160").wait_for()
    page.page.get_by_role("button", name="On").click()
    page.page.get_by_text("part 2 of 160").wait_for()
    assert (
        page.page.locator("pre[aria-label=Output]").evaluate("e => e.textContent.length") <= 65_537
    )


def test_keys_select_fold_search_and_change_the_axis(opened: Any) -> None:
    root = step(0, kind="agent")
    failed = step(3, root["step_id"], status="error", error_type="Timeout")
    steps = [root, step(1, root["step_id"]), step(2, root["step_id"], name="needle"), failed]
    page = opened(steps)
    assert page.selected() == root["step_id"]
    page.key("j")
    assert page.selected() == steps[1]["step_id"]
    page.key("k")
    page.key("e")
    assert page.selected() == failed["step_id"]
    page.key("Home")
    page.key("ArrowLeft")
    page.page.wait_for_function("document.querySelectorAll('[role=treeitem]').length === 1")
    page.key("ArrowRight")
    page.page.wait_for_function("document.querySelectorAll('[role=treeitem]').length === 4")
    page.key("t")
    assert page.page.get_by_role("button", name="By step").get_attribute("aria-pressed") == "true"
    page.key("/")
    page.page.get_by_placeholder("Search names").fill("needle")
    page.page.get_by_text("1 of 4 steps").wait_for()
    page.key("Enter")
    assert page.selected() == steps[2]["step_id"]
    page.key("Escape")
    page.key("?")
    page.page.get_by_role("dialog").get_by_text("Keys and marks").wait_for()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_no_serious_violation(browser: Browser, opened: Any, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    root = step(0, kind="agent")
    failed = step(2, root["step_id"], status="error", error_type="Timeout", input="a", output="b")
    page = opened([root, step(1, root["step_id"], kind="llm_call"), failed], contents=True)
    page.page.emulate_media(color_scheme=scheme)
    # The page's policy refuses scripts from elsewhere, so axe comes by the browser's own protocol.
    results = Axe().run(page.page)
    serious = [
        one for one in results.response["violations"] if one["impact"] in ("serious", "critical")
    ]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []
