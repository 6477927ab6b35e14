"""Each page as the console serves it, with real data: what it shows, and that it is accessible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.console.known_runs import KnownRuns
from tests.console.world import Visit

PAGES = {
    "now": ("/", ("Just ended", "Firing", "Spend, last 60 min", "support / refund")),
    "runs": (
        "/runs",
        ("support / refund", "TimeoutError", "Most expensive"),
    ),
    "run": (
        "/runs/{failed}",
        ("on the critical path", "PaymentError", "What caused the wrong answer?"),
    ),
    "alerts": ("/alerts", ("firing", "support / refund", "What is wrong")),
    "alert": ("/alerts/{alert}", ("Evidence", "What happened", "Acknowledge", "Rule")),
    "compare": ("/compare?a={failed}&b={good}", ("Steps, aligned by content", "not in this run")),
    "versions": ("/compare", ("Two versions of an agent", "No agent has closed runs")),
    "releases": ("/releases", ("No release is published yet", "Configuration drift")),
    "ask": ("/ask?question=cost", ("The same elsewhere", "stepstream ask cost", "support")),
    "cost check": ("/ask?question=cost-check", ("A CSV with a heading", "Compare")),
    "cost": ("/cost", ("By agent", "By model", "gpt-4o", "support")),
    "system": ("/system", ("Kafka", "Worker", "Sink", "Store", "This console")),
}
"""Address and texts of each page."""


def at(runs: KnownRuns, path: str) -> str:
    return path.format(failed=runs.failed, good=runs.good[-1], alert=runs.alert)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("name", PAGES)
def test_each_page_shows_real_data_and_is_accessible(
    visits: Callable[..., Visit], runs: KnownRuns, name: str, scheme: Any
) -> None:
    path, texts = PAGES[name]
    visit = visits(color_scheme=scheme).open(at(runs, path))
    for text in texts:
        visit.text(text)
    visit.live()
    if name == "run":
        visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    if name == "system":
        visit.until("!document.body.innerText.includes('Checking')")
    assert visit.serious() == []
    if scheme == "dark":
        visit.screenshot(name)


@pytest.mark.parametrize("name", ["now", "run", "runs"])
def test_pages_fit_a_narrow_screen(
    visits: Callable[..., Visit], runs: KnownRuns, name: str
) -> None:
    """No sideways scrolling, and the menu opens."""
    visit = visits(viewport={"width": 390, "height": 800}).open(at(runs, PAGES[name][0]))
    visit.text("Menu")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.button("Menu").click()
    visit.page.get_by_role("link", name="System").click()
    visit.text("This console")
