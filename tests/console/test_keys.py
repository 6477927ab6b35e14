"""Each key of each page does what the list under ? states."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.console.known_runs import KnownRuns
from tests.console.world import Agent, Visit, World
from tests.support.task_states import Story, send_states

# The visible part of a run's axis, as the address has it.
_ZOOM = "(new URLSearchParams(location.search).get('zoom') ?? '0-1').split('-').map(Number)"


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
        listed = self.listed()
        assert listed
        left = {keys for keys in listed if not self.pressed & {keys, *keys.split(" ")}}
        assert left == set()


@pytest.fixture
def keys(visit: Visit) -> Keys:
    return Keys(visit)


def at_row(number: int) -> str:
    return f"document.querySelectorAll('tbody tr')[{number}]?.classList.contains('at')"


def test_keys_of_a_run(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open(f"/runs/{runs.failed}")
    visit.rows().first.wait_for()
    visit.key("Home")
    first = visit.selected()
    keys("j")
    assert visit.selected() != first
    keys("k")
    assert visit.selected() == first
    keys("e")
    failure = visit.selected()
    keys("e", "E")
    assert visit.selected() == failure
    ruler = "document.querySelector('.ruler').innerText"
    keys.until("c", f"{ruler}.includes('only they are shown')")
    keys.until("c", f"!{ruler}.includes('only they are shown')")
    keys.until("t", "location.search.includes('axis=step')")
    keys("t", "t")
    keys.until("+", f"{_ZOOM}[1] - {_ZOOM}[0] < 0.7")
    keys.until("+", f"{_ZOOM}[1] - {_ZOOM}[0] < 0.4")
    begin = visit.page.evaluate(_ZOOM)[0]
    keys.until("]", f"{_ZOOM}[0] > {begin + 0.01}")
    begin = visit.page.evaluate(_ZOOM)[0]
    keys.until("[", f"{_ZOOM}[0] < {begin - 0.01}")
    keys.until("-", f"{_ZOOM}[1] - {_ZOOM}[0] > 0.5")
    keys.until("0", "!location.search.includes('zoom=')")
    keys("/")
    visit.page.get_by_placeholder("Search names").fill("refund")
    visit.text("of 30 steps")
    visit.key("Enter")
    assert "refund" in visit.selected()
    visit.key("Escape")
    for key, text in (("1", "suspect 1"), ("2", "cost 1"), ("3", "Tools on offer")):
        keys(key)
        visit.text(text)
    keys("l")
    visit.until("document.querySelector('[aria-selected=true]')")
    keys("s", "r")
    assert visit.page.get_by_role("dialog").count() == 0  # the run has ended


def test_keys_of_a_run_s_tree(keys: Keys, runs: KnownRuns) -> None:
    """Those of WAI-ARIA; and the key that leads to another page."""
    visit = keys.visit.open(f"/runs/{runs.failed}")
    visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    visit.key("Home", "ArrowLeft")
    visit.until("document.querySelectorAll('[role=treeitem]').length === 1")
    visit.key("ArrowRight")
    visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    visit.key("ArrowLeft", "*")
    visit.until("document.querySelectorAll('[role=treeitem]').length > 20")
    first = visit.selected()
    visit.key("End")
    last = visit.selected()
    assert last != first
    visit.key("ArrowUp")
    assert visit.selected() != last
    visit.key("ArrowDown")
    assert visit.selected() == last
    visit.key("PageUp", "PageDown")
    assert visit.selected() == last
    visit.key("Enter")
    visit.until("document.activeElement.getAttribute('aria-label') === 'Step'")
    visit.key("4")
    visit.page.wait_for_url("**/compare*")
    visit.text("Steps, aligned by content")


def test_every_key_of_a_run_is_tested(keys: Keys, runs: KnownRuns) -> None:
    keys.visit.open(f"/runs/{runs.failed}")
    keys.visit.rows().first.wait_for()
    keys.pressed = {*"jkeEct0[]/1234lsr", "+", "-"}
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
        visit.text(agent.trace_id[:6])
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


def test_keys_of_an_alert(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open(f"/alerts/{runs.alert}")
    visit.text("Evidence")
    visit.enabled("Stop the run")
    keys("r", "s")
    dialog = visit.page.get_by_role("dialog")
    dialog.wait_for()
    visit.key("Escape")
    dialog.wait_for(state="hidden")
    keys.pressed |= {"a", "m"}  # they change the alert: test_actions presses them
    keys.until("o", f"location.pathname === '/runs/{runs.looping}'")
    visit.page.go_back()
    visit.text("Evidence")
    keys.check()


def test_keys_of_a_comparison(keys: Keys, runs: KnownRuns) -> None:
    visit = keys.visit.open(f"/compare?a={runs.failed}&b={runs.good[0]}")
    visit.text("Steps, aligned by content")
    keys("n")
    visit.text("What the two steps read and wrote")
    chosen = "[...document.querySelectorAll('.compareline')].findIndex((e) => e.ariaCurrent)"
    first = visit.page.evaluate(chosen)
    keys.until("n", f"{chosen} > {first}")
    keys.until("p", f"{chosen} === {first}")
    keys("r")
    keys.until("d", "location.search.includes('show=differences')")
    keys.until("d", "!location.search.includes('show=')")
    keys.until("x", f"location.search.startsWith('?a={runs.good[0]}')")
    visit.text("Steps, aligned by content")
    keys.check()


@pytest.mark.parametrize(
    ("path", "text", "pressed", "result"),
    [
        ("/cost", "By agent", ("r",), "By model"),
        ("/system", "This console", ("r", "d"), "What was found"),
        ("/ask", "Ask", ("r",), "Ask"),
        ("/releases", "Releases", ("r",), "Releases"),
        ("/evals", "Gate verdicts", ("r",), "Experiments"),
    ],
)
def test_keys_of_the_other_pages(
    keys: Keys,
    runs: KnownRuns,
    path: str,
    text: str,
    pressed: tuple[str, ...],
    result: str,
) -> None:
    keys.visit.open(path)
    keys.visit.text(text)
    keys(*pressed)
    keys.visit.text(result)
    keys.check()


def test_keys_of_tasks(visits: Callable[..., Visit], world: World) -> None:
    """The list, and one task; what ends something asks first."""
    waiting = [Story(f"key-{n}", "keys", project="keys", priority=9 - n) for n in range(2)]
    send_states(world.settings, *(record for one in waiting for record in one.records))
    keys = Keys(visits().open("/tasks"))
    visit = keys.visit
    visit.text("key-1")
    visit.live()
    keys.until("r", "document.body.innerText.includes('Waiting, and why')")
    row = "document.querySelector('tr.at')?.innerText ?? ''"
    first = visit.page.evaluate(row)
    keys.until("j", f"{row} !== {json.dumps(first)}")
    keys.until("k", f"{row} === {json.dumps(first)}")
    keys("c")
    visit.page.get_by_role("dialog").get_by_text("Cancel task").wait_for()
    visit.key("Escape")
    visit.page.get_by_role("dialog").wait_for(state="hidden")
    keys.until("Enter", "location.pathname.startsWith('/tasks/')")
    visit.text("What happened")
    visit.page.go_back()
    visit.text("Waiting, and why")
    keys.check()

    keys = Keys(visits().open("/tasks/key-0?project=keys"))
    keys.visit.text("What happened")
    keys.visit.enabled("Cancel")
    keys("r", "t", "c")
    keys.visit.page.get_by_role("dialog").get_by_text("Cancel task key-0?").wait_for()
    keys.visit.key("Escape")
    keys.visit.page.get_by_role("dialog").wait_for(state="hidden")
    keys.check()


def test_keys_of_every_page(visit: Visit, runs: KnownRuns) -> None:
    """The two-key ones, and search by text and by id."""
    visit.open("/")
    visit.text("Just ended")
    pages = {
        **{"r": "/runs", "a": "/alerts", "c": "/cost", "e": "/releases", "v": "/evals"},
        **{"q": "/ask", "s": "/system", "t": "/tasks", "n": "/"},
    }
    for key, path in pages.items():
        visit.key("g", key)
        visit.until(f"location.pathname === '{path}'")
    visit.key("/")
    visit.until("document.activeElement.id === 'quick'")
    visit.page.keyboard.type("TimeoutError")
    visit.key("Enter")
    visit.until("location.search === '?q=TimeoutError'")
    visit.text(runs.failed[:6])
    visit.key("/")
    visit.page.locator("#quick").fill(runs.failed)
    visit.key("Enter")
    visit.until(f"location.pathname === '/runs/{runs.failed}'")
    visit.key("?")
    visit.page.get_by_role("dialog").get_by_text("Keys and marks").wait_for()
