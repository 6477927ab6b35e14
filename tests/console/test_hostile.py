"""Large, malformed and hostile runs are drawn, and nothing in them is executed."""

from __future__ import annotations

from typing import Any

from tests.console.world import STARTED_US, Visit, World, step

HOSTILE = (
    "\u202e</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    "\x1b[31m {{7*7}} javascript:alert(1)"
)
TEXTS = (
    *("name", "tool", "model", "provider", "environment", "agent", "agent_version", "task"),
    *("session_id", "user_id", "error_type", "error_message", "input", "output", "tool_schema"),
)


def test_script_in_every_field_is_text_on_every_page(world: World, visit: Visit) -> None:
    """Also in an alert about the run, in its comparison, and in the lists."""
    hostile: dict[str, Any] = dict.fromkeys(TEXTS, HOSTILE)
    more = {
        "attributes": {HOSTILE: HOSTILE},
        "documents": [{"id": HOSTILE, "score": 0.5, "content": HOSTILE}],
        "status": "error",
        "cost_usd": "0.01",
    }
    running = {**step(0), **hostile, "phase": "start", "end_time": None}
    trace_id = world.send(
        [
            running,
            *(step(n, 0, **{**hostile, **more, "kind": HOSTILE}) for n in range(1, 4)),
            *(step(n, 0, **{**hostile, "input": HOSTILE}) for n in range(4, 18)),
        ]
    )
    world.stored(trace_id, 17)
    alert = world.alert_of(trace_id)
    pages = (
        f"/runs/{trace_id}?step={2:016x}",
        "/",
        "/runs",
        "/alerts",
        f"/alerts/{alert}",
        f"/compare?a={trace_id}&b={trace_id}",
        "/cost",
    )
    for path in pages:
        visit.open(path)
        visit.text("⟦RLO⟧")
        unharmed(visit)
    visit.open(f"/runs?q={HOSTILE.replace('&', '%26')}")
    visit.page.locator("h1").first.wait_for()
    visit.open(pages[0])
    visit.text("⟦ESC⟧")
    for key in ("1", "2", "3"):
        visit.key(key)
        visit.until("!document.querySelector('.ghost')")
    unharmed(visit)


def unharmed(visit: Visit) -> None:
    assert visit.page.evaluate("window.ran") is None
    assert visit.page.locator("img").count() == 0


def test_malformed_trees_are_drawn_and_marked(world: World, visit: Visit) -> None:
    """An orphan, parents in a circle, a second root, a negative duration, a step without an end."""
    steps = [
        step(0),
        {**step(1), "parent_step_id": "f" * 16},
        step(2, 3),
        step(3, 2),
        step(4),
        step(5, 0, start=STARTED_US + 9_000, end=STARTED_US + 1_000),
        {**step(6, 0), "phase": "start", "end_time": None},
    ]
    trace_id = world.send(steps)
    world.stored(trace_id, 6)
    visit.open(f"/runs/{trace_id}")
    visit.until_steps("=== 7")
    for text in ("parent missing", "parents in a circle", "another root"):
        visit.text(text)


def test_contents_of_10_megabytes(world: World, visit: Visit) -> None:
    """The page states the size and shows what is stored."""
    large = "0123456789" * 1_000_000
    tracer = world.tracer()
    with tracer.run(task="large", input=large) as run, run.tool("read", input=large) as tool:
        tool.set_output(large)
    assert tracer.flush(60)
    tracer.close(30)
    world.stored(run.trace_id, 2)
    visit.open(f"/runs/{run.trace_id}")
    visit.rows().first.wait_for()
    visit.text("10 MB")
    visit.page.locator("pre.box").get_by_text("0123456789").first.wait_for()


def test_1400_levels_are_drawn(world: World, visit: Visit) -> None:
    """Deeper than the stack of most programs."""
    trace_id = world.send([step(n, n - 1 if n else None) for n in range(1_400)])
    world.stored(trace_id, 1_400)
    visit.open(f"/runs/{trace_id}")
    visit.rows().first.wait_for()
    visit.key("End")
    visit.page.wait_for_selector("[aria-level='1400']")


def test_50000_steps_are_drawn_in_few_elements(world: World, visit: Visit) -> None:
    """None is cut; the last one is reached by a key, and a search finds one in the middle."""
    trace_id = world.send([step(n, 0 if n else None) for n in range(50_000)])
    world.stored(trace_id, 50_000)
    visit.open(f"/runs/{trace_id}")
    visit.until_steps("=== 50000")
    visit.key("End")
    visit.page.wait_for_selector("[data-id='000000000000c350'][aria-selected=true]")
    visit.key("/")
    visit.page.get_by_placeholder("Search names").fill("step 31337")
    visit.text("1 of 50,000 steps")
    visit.key("Enter")
    assert visit.selected() == "step 31337"
    assert visit.page.evaluate("document.querySelectorAll('*').length") < 1_500
    assert visit.page.get_by_text("only the first").count() == 0
