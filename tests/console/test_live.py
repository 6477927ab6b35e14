"""A run that is going on grows on its page without a reload, and no step is missed or doubled."""

from __future__ import annotations

import threading
import uuid

from tests.console.world import Agent, Visit, World, in_threads, step
from tests.support.processes import wait_until
from tests.support.sink import encoded, send


def test_a_running_run_grows_without_a_reload(world: World, visit: Visit) -> None:
    visit.expected = ("404",)  # the run is opened before the store has it
    with Agent(world) as agent:
        visit.open(f"/runs/{agent.trace_id}")
        visit.until_steps("> 3")
        visit.page.evaluate("window.same = true")
        for _ in range(2):
            visit.until_steps(f"> {visit.steps_shown() + 5}")
        visit.key("l")
        before = visit.selected()
        visit.until(
            f"document.querySelector('[aria-selected=true] .label b').innerText !== {before!r}"
        )
        agent.end()
        visit.until("document.querySelector('.runhead .state').innerText.trim() === 'ok'")
        visit.until_steps(f"=== {agent.steps}")
        assert visit.page.evaluate("window.same")


def test_a_run_that_is_opened_before_its_first_step(world: World, visit: Visit) -> None:
    """The page states that there is none, and shows it as soon as it begins."""
    visit.expected = ("404",)
    trace_id = uuid.uuid4().hex
    visit.open(f"/runs/{trace_id}")
    visit.text("A run that has just begun appears here by itself.")
    visit.live()
    visit.page.evaluate("window.same = true")
    world.send([{**step(0), "phase": "start", "end_time": None}, step(1, 0)], trace_id)
    visit.until_steps("=== 2")
    visit.page.locator(".runhead h1").get_by_text("sender").wait_for()
    world.send([step(2, 0), step(0)], trace_id)
    visit.until_steps("=== 3")
    visit.until("document.querySelector('.runhead .state').innerText.trim() === 'ok'")
    assert visit.page.evaluate("window.same")


def test_snapshot_and_stream_meet_under_load(world: World, visit: Visit) -> None:
    """Steps come at hundreds a second while the page opens, of this run and of others."""
    run = step(0)
    trace_id = world.send([{**run, "phase": "start", "end_time": None}])
    stop = threading.Event()
    sent = [0]

    def load() -> None:
        while not stop.wait(0.05):
            mine = [
                (trace_id, encoded({"trace_id": trace_id, **step(sent[0] + n + 1, 0)}))
                for n in range(20)
            ]
            send(world.settings, mine + other_run(20))
            sent[0] += 20

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_until(lambda: sent[0] > 200, 60, "two hundred steps")
        visit.open(f"/runs/{trace_id}")
        visit.rows().first.wait_for()
        shown = visit.steps_shown()
        visit.until_steps(f"> {shown + 200}")
    finally:
        stop.set()
        thread.join(60)
    visit.until_steps(f"=== {sent[0] + 1}")
    in_threads(lambda: world.stored(trace_id, sent[0]))
    with visit.page.expect_response(lambda answer: answer.url.endswith("/steps")):
        visit.key("r")
    visit.until_steps(f"=== {sent[0] + 1}")


def other_run(steps: int) -> list[tuple[str, bytes]]:
    """The records of another run."""
    trace_id = uuid.uuid4().hex
    return [(trace_id, encoded({"trace_id": trace_id, **step(n, 0)})) for n in range(steps)]
