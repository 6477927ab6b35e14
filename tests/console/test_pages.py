"""Each page as the console serves it, with real data: what it shows, and that it is accessible."""

from __future__ import annotations

from collections.abc import Callable

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
    "releases": ("/releases", ("support", "Configuration drift")),
    "release": ("/releases/support?old=v12&new=v13", ("Published", "v13", "Be kind (v13).")),
    "evals": ("/evals", ("Gate verdicts", "Experiments", "Success by Criteria", "refunds")),
    "eval": ("/evals/{verdict}", ("Metrics", "Cases that moved", "case-03", "points")),
    "tasks": ("/tasks", ("Queues", "Executors", "Waiting, and why")),
    "ask": ("/ask?question=cost", ("The same elsewhere", "stepstream ask cost", "support")),
    "cost check": ("/ask?question=cost-check", ("A CSV with a heading", "Compare")),
    "cost": ("/cost", ("By agent", "By model", "gpt-4o", "support")),
    "system": ("/system", ("Kafka", "Worker", "Sink", "Store", "This console")),
}
"""Address and texts of each page."""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def at(runs: KnownRuns, path: str) -> str:
    return path.format(
        failed=runs.failed, good=runs.good[-1], alert=runs.alert, verdict=runs.verdict
    )


@pytest.mark.parametrize("name", PAGES)
def test_each_page_shows_real_data_and_is_accessible(
    visit: Visit, runs: KnownRuns, name: str
) -> None:
    """In the dark and in the light colour scheme."""
    path, texts = PAGES[name]
    visit.page.emulate_media(color_scheme="dark")
    visit.open(at(runs, path))
    for text in texts:
        visit.text(text)
    visit.live()
    if name == "run":
        visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    if name == "system":
        visit.until("!document.body.innerText.includes('Checking')")
    assert visit.serious() == []
    visit.screenshot(name)
    dark = visit.page.evaluate(BACKGROUND)
    visit.page.emulate_media(color_scheme="light")
    visit.until(f"{BACKGROUND} !== {dark!r}")
    assert visit.serious() == []


@pytest.mark.parametrize("name", ["now", "run", "runs"])
def test_pages_fit_a_narrow_screen(visit: Visit, runs: KnownRuns, name: str) -> None:
    """No sideways scrolling, and the menu opens."""
    visit.page.set_viewport_size({"width": 390, "height": 800})
    visit.open(at(runs, PAGES[name][0]))
    visit.text("Menu")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.button("Menu").click()
    visit.page.get_by_role("link", name="System").click()
    visit.text("This console")


def test_the_answers_to_the_four_questions_of_a_run(visit: Visit, runs: KnownRuns) -> None:
    """Each by a click, in the address, with steps that can be selected."""
    visit.open(f"/runs/{runs.failed}")
    visit.rows().first.wait_for()
    for question, text in (
        ("What caused the wrong answer?", "suspect 1"),
        ("Where did the cost spike?", "cost 1"),
        ("Why this tool?", "Tools on offer, and choices in similar runs"),
    ):
        visit.button(question).click()
        visit.text(text)
        visit.screenshot(f"answer-{question.split()[0].lower()}")
    visit.until("location.search.includes('ask=tool')")
    assert visit.serious() == []
    visit.button("Compare with a good run").click()
    visit.page.wait_for_url("**/compare?a=*&b=*")
    visit.text("Steps, aligned by content")


def test_a_pasted_link_shows_the_same(visits: Callable[..., Visit], runs: KnownRuns) -> None:
    """Selection, zoom, time axis, search and question; and the filters of a list."""
    first = visits().open(f"/runs/{runs.failed}")
    first.rows().first.wait_for()
    first.key("t", "j", "j", "j", "+", "+")
    first.until("location.search.includes('zoom=') && location.search.includes('step=')")
    first.key("/")
    first.page.get_by_placeholder("Search names").fill("search")
    first.until("location.search.includes('find=search')")
    address = own_path(first)
    second = visits().open(address)
    assert second.selected() == first.selected()
    assert second.button("By step").get_attribute("aria-pressed") == "true"
    second.text("Whole run")
    assert own_path(second) == address

    first.open("/runs")
    first.button("Failed").first.click()
    first.until("location.search.includes('status=error')")
    address = own_path(first)
    second.open(address)
    second.text(runs.failed[:6])
    states = "[...document.querySelectorAll('tbody tr .state')].map((one) => one.innerText.trim())"
    second.until(f"{states}.every((state) => state === 'error')")


def own_path(visit: Visit) -> str:
    return str(visit.page.evaluate("location.pathname + location.search"))


def test_the_list_of_runs_is_filtered_searched_and_exported(visit: Visit, runs: KnownRuns) -> None:
    visit.open("/runs")
    visit.text("support / refund")
    visit.page.get_by_placeholder("Search names, errors, ids").fill("u9")
    visit.key("Enter")
    visit.until("document.querySelectorAll('tbody tr').length === 1")
    visit.text(runs.failed[:6])
    with visit.page.expect_download() as download:
        visit.button("Export").first.click()
    exported = download.value.path().read_text()
    assert runs.failed in exported
    assert exported.count("\n") == 1
    visit.button("Clear").click()
    visit.until("document.querySelectorAll('tbody tr').length >= 7")
