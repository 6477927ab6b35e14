"""Each key of each page does what the list under ? states."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.console.known_runs import KnownRuns
from tests.console.world import Agent, Visit, World


class Keys:
    """Presses keys, and remembers which."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.pressed: set[str] = set()

    def __call__(self, *keys: str) -> None:
        for key in keys:
            self.visit.key(*key.split(" "))
            self.pressed.add(key)

    def until(self, key: str, script: str) -> None:
        self(key)
        self.visit.until(script)

    def listed(self) -> set[str]:
        """The keys of this page in the list under ?."""
        visit = self.visit
        visit.key("?")
        dialog = visit.page.get_by_role("dialog")
        dialog.wait_for()
        rows = dialog.locator(".columns").first.locator("> div").first.locator(".keydef")
        found = [" ".join(row.locator("kbd").all_inner_texts()) for row in rows.all()]
        visit.key("Escape")
        dialog.wait_for(state="hidden")
        return set(found)

    def check(self) -> None:
        """Every key of the page was pressed; of two for the same, one."""
        left = {keys for keys in self.listed() if not self.pressed & {keys, *keys.split(" ")}}
        assert left == set()


@pytest.fixture
def keys(visit: Visit) -> Keys:
    return Keys(visit)


def at_row(number: int) -> str:
    return f"document.querySelectorAll('tbody tr')[{number}]?.classList.contains('at')"


def zoomed(inside: str) -> str:
    return f"(location.search.match(/zoom=([^&]*)/)?.[1] ?? '') {inside}"


def test_keys_of_a_run(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open(f"/runs/{runs.failed}")
    visit.rows().first.wait_for()
    visit.key("Home")
    first = visit.selected()
    keys("j")
    second = visit.selected()
    assert second != first
    keys("k")
    assert visit.selected() == first
    keys("e")
    failure = visit.selected()
    keys("e", "E")
    assert visit.selected() == failure
    keys.until("c", "document.querySelector('.ruler').innerText.includes('only they are shown')")
    keys.until("c", "!document.querySelector('.ruler').innerText.includes('only they')")
    keys.until("t", "location.search.includes('axis=step')")
    keys("t", "t")
    keys.until("+", zoomed("!== ''"))
    keys.until("+", zoomed("!== ''"))
    before = visit.page.url
    keys.until("]", f"location.href !== {before!r}")
    before = visit.page.url
    keys.until("[", f"location.href !== {before!r}")
    keys("-")
    keys.until("0", zoomed("=== ''"))
    keys("/")
    visit.page.get_by_placeholder("Search names").fill("refund")
    visit.text("of 30 steps")
    visit.key("Enter")
    assert "refund" in visit.selected()
    visit.key("Escape")
    for key, text in (("1", "suspect 1"), ("2", "cost 1"), ("3", "Why ")):
        keys(key)
        visit.text(text)
    keys("l")
    visit.until("document.querySelector('[aria-selected=true]')")
    keys("s", "r")
    assert visit.page.get_by_role("dialog").count() == 0  # the run has ended
    # The keys of a tree.
    visit.key("Home", "ArrowLeft")
    visit.until("document.querySelectorAll('[role=treeitem]').length === 1")
    visit.key("ArrowRight")
    visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    visit.key("End", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "*")
    assert visit.selected() != first
    keys("4")
    visit.page.wait_for_url("**/compare*")
    visit.page.go_back()
    visit.rows().first.wait_for()
    keys.check()


def test_keys_of_the_list_of_runs(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open("/runs?agent=support&task=refund")
    visit.text("support / refund")
    visit.until(at_row(0))
    keys.until("j", at_row(1))
    keys.until("k", at_row(0))
    keys("x", "j", "x")
    visit.text("2 selected")
    keys("r")
    keys.until("c", "location.pathname === '/compare'")
    visit.page.go_back()
    visit.until(at_row(0))
    keys.until("Enter", "location.pathname.startsWith('/runs/')")
    visit.page.go_back()
    visit.until(at_row(0))
    keys.check()


def test_keys_of_the_page_now(keys: Keys, runs: KnownRuns, world: World) -> None:
    with Agent(world) as agent:
        visit = keys.visit.open("/")
        visit.text(agent.trace_id[:8])
        keys("j", "k", "y", "r")
        keys.until("Enter", "location.pathname.startsWith('/runs/')")
        visit.page.go_back()
        visit.text("Just ended")
        visit.page.locator("a.alertrow").first.wait_for()
        keys.until("a", "location.pathname.startsWith('/alerts/')")
        visit.page.go_back()
        visit.text("Just ended")
        keys.check()


def test_keys_of_alerts(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open("/alerts")
    visit.until(at_row(0))
    keys("j", "k", "r")
    visit.until(at_row(0))
    keys.until("Enter", "location.pathname.startsWith('/alerts/')")
    visit.page.go_back()
    visit.until(at_row(0))
    keys.check()


def test_keys_of_an_alert(visit: Visit, runs: KnownRuns, world: World) -> None:
    """Those that change it are in test_actions."""
    keys = Keys(visit)
    visit.open(f"/alerts/{runs.alert}")
    visit.text("Evidence")
    keys("r", "s")
    visit.page.get_by_role("dialog").wait_for()
    visit.key("Escape")
    keys.pressed |= {"a", "m"}
    keys.until("o", f"location.pathname === '/runs/{runs.failed}'")
    visit.page.go_back()
    visit.text("Evidence")
    keys.check()


def test_keys_of_a_comparison(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open(f"/compare?a={runs.failed}&b={runs.good[0]}")
    visit.text("Steps, aligned by content")
    keys("n")
    visit.text("What the two steps read and wrote")
    keys("n", "p", "r")
    keys.until("d", "location.search.includes('show=differences')")
    keys.until("d", "!location.search.includes('show=')")
    keys.until("x", f"location.search.startsWith('?a={runs.good[0]}')")
    visit.text("Steps, aligned by content")
    keys.check()


def test_keys_of_cost_and_system(visits: Callable[..., Visit], runs: KnownRuns) -> None:
    cost = Keys(visits().open("/cost"))
    cost.visit.text("By agent")
    cost("r")
    cost.check()
    system = Keys(visits().open("/system"))
    system.visit.text("This console")
    system("r", "d")
    system.visit.text("What was found")
    system.check()


def test_keys_of_every_page(visit: Visit, runs: KnownRuns) -> None:
    """The two-key ones, and search by text and by id."""
    visit.open("/")
    visit.text("Just ended")
    for key, path in (("r", "/runs"), ("a", "/alerts"), ("c", "/cost"), ("s", "/system")):
        visit.key("g", key)
        visit.until(f"location.pathname === '{path}'")
    visit.key("g", "n")
    visit.until("location.pathname === '/'")
    visit.key("/")
    visit.until("document.activeElement.id === 'quick'")
    visit.page.keyboard.type("PaymentError")
    visit.key("Enter")
    visit.until("location.search === '?q=PaymentError'")
    visit.text(runs.failed[:8])
    visit.key("/")
    visit.page.locator("#run-text, #quick").first.wait_for()
    visit.page.locator("#quick").fill(runs.failed)
    visit.key("Enter")
    visit.until(f"location.pathname === '/runs/{runs.failed}'")
    visit.key("?")
    visit.page.get_by_role("dialog").get_by_text("Keys and marks").wait_for()
