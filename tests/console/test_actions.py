"""What people do on the pages reaches agents and alerts, and its effect appears there."""

from __future__ import annotations

from tests.console.world import Agent, Visit, World
from tests.support.processes import wait_until


def confirmed(visit: Visit, button: str, reason: str) -> None:
    """Agree in the dialog that is open, with a reason."""
    dialog = visit.page.get_by_role("dialog")
    dialog.wait_for()
    dialog.locator("input").fill(reason)
    dialog.get_by_role("button", name=button).click()


def open_run(visit: Visit, agent: Agent) -> None:
    visit.open(f"/runs/{agent.trace_id}")
    visit.until("document.querySelectorAll('[role=treeitem]').length > 3")
    visit.live()


def test_a_stop_reaches_the_agent_and_its_control_step_appears(world: World, visit: Visit) -> None:
    with Agent(world) as agent:
        open_run(visit, agent)
        visit.key("s")
        confirmed(visit, "Stop the run", "wrong customer")
        wait_until(agent.has_stopped, 60, "the agent is stopped")
        assert agent.stopped is not None
        assert agent.stopped.reason == "wrong customer"
        assert agent.stopped.by
        stop = visit.page.locator("[role=treeitem][aria-label*='control, stop']")
        visit.key("End")
        stop.first.wait_for()
        visit.page.locator(
            "[role=treeitem][aria-label*='control, stop'][aria-label*=', ok,']"
        ).wait_for()
        visit.page.locator(".runhead .state").get_by_text("stopped").first.wait_for()
        visit.screenshot("stopped")
    assert agent.calls > 0


def test_pause_resume_and_approve(world: World, visit: Visit) -> None:
    seen: list[str] = []

    def note(command: object) -> None:
        seen.append(str(getattr(command, "action", "")))

    with Agent(world, on_command=note) as agent:
        open_run(visit, agent)
        visit.button("Pause").click()
        confirmed(visit, "Pause the run", "too expensive")
        wait_until(lambda: seen == ["pause"], 60, "the pause has arrived")
        visit.button("Resume").wait_for()
        calls = agent.calls
        visit.button("Resume").click()
        confirmed(visit, "Resume the run", "")
        wait_until(lambda: agent.calls > calls + 1, 60, "the agent goes on")
        visit.button("Pause").click()
        confirmed(visit, "Pause the run", "")
        wait_until(lambda: seen.count("pause") == 2, 60, "the second pause")
        calls = agent.calls
        visit.open("/")
        visit.text("Waiting for a command")
        visit.screenshot("waiting")
        visit.key("y")
        wait_until(lambda: agent.calls > calls + 1, 60, "the agent goes on")
        assert seen == ["pause", "resume", "pause", "resume"]


def loops(world: World) -> str:
    """A run that ended with an alert about it. Returns the alert's id."""
    tracer = world.tracer(agent="looper")
    with tracer.run(task="search") as run:
        for _ in range(12):
            with run.tool("search", input={"q": "the same"}) as tool:
                tool.set_output("nothing found")
    assert tracer.flush(60)
    tracer.close(30)
    return world.alert_of(run.trace_id)


def test_acknowledge_silence_and_resolve(world: World, visit: Visit) -> None:
    """The worker applies each, the store has who did it, and the page shows it."""
    alert = loops(world)
    visit.open(f"/alerts/{alert}")
    visit.text("Evidence")
    visit.key("a")
    visit.text("Acknowledged")
    visit.key("m")
    visit.text("Silenced")
    visit.button("Resolve").click()
    confirmed(visit, "Resolve", "fixed")
    visit.text("resolved ")
    for change in ("acknowledged by", "silenced by", "resolved by"):
        visit.text(change)
    sql = f"SELECT acknowledged_by, state FROM alerts WHERE alert_id = '{alert}'"
    wait_until(lambda: world.query(sql)[0]["state"] == "resolved", 60, "the resolved alert")
    assert world.query(sql)[0]["acknowledged_by"]
    visit.screenshot("resolved")
