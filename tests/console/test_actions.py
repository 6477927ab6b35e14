"""What people do on the pages reaches agents and alerts, and its effect appears there."""

from __future__ import annotations

from stepstream.schemas.alert import Command
from tests.console.known_runs import loop
from tests.console.world import Agent, Visit, World, in_threads
from tests.support.processes import wait_until


def confirmed(visit: Visit, button: str, reason: str) -> None:
    """Agree in the dialog that is open, with a reason."""
    dialog = visit.page.get_by_role("dialog")
    dialog.wait_for()
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button).click()


def open_run(visit: Visit, agent: Agent) -> None:
    visit.open(f"/runs/{agent.trace_id}")
    visit.until_steps("> 3")
    visit.live()


def test_a_stop_reaches_the_agent_and_its_control_step_appears(world: World, visit: Visit) -> None:
    """Without a reload, with the agent's acknowledgement as the step's end."""
    visit.expected = ("404",)  # the run is opened before the store has it
    with Agent(world) as agent:
        open_run(visit, agent)
        visit.enabled("Stop")
        visit.key("s")
        confirmed(visit, "Stop the run", "wrong customer")
        wait_until(lambda: agent.stopped, 60, "the agent is stopped")
        assert agent.stopped is not None
        assert agent.stopped.reason == "wrong customer"
        assert agent.stopped.by
        visit.key("End")
        visit.page.locator(
            "[role=treeitem][aria-label*='control, stop'][aria-label*=', ok,']"
        ).wait_for()
        visit.page.locator(".runhead .state").get_by_text("stopped").first.wait_for()
        visit.screenshot("stopped")
    assert agent.calls > 0


def test_pause_resume_and_approve(world: World, visit: Visit) -> None:
    visit.expected = ("404",)
    seen: list[str] = []
    budgets: list[str] = []

    def note(command: Command) -> None:
        seen.append(command.action)
        budgets.append(command.budget_usd)

    with Agent(world, on_command=note) as agent:
        open_run(visit, agent)
        visit.button("Pause").click()
        confirmed(visit, "Pause the run", "too expensive")
        wait_until(lambda: seen == ["pause"], 60, "the pause has arrived")
        calls = agent.calls
        visit.button("Resume").click()
        confirmed(visit, "Resume the run", "")
        wait_until(lambda: agent.calls > calls + 1, 60, "the agent goes on")
        visit.button("Approve").click()
        visit.page.get_by_role("dialog").get_by_label("Dollars").fill("2.5")
        confirmed(visit, "Approve", "")
        wait_until(lambda: budgets == ["", "", "2.5"], 60, "the approval has arrived")
        visit.button("Pause").click()
        confirmed(visit, "Pause the run", "")
        wait_until(lambda: seen.count("pause") == 2, 60, "the second pause")
        calls = agent.calls
        visit.open("/")
        visit.text("Waiting for a command")
        visit.enabled("Approve")
        visit.screenshot("waiting")
        visit.key("y")
        wait_until(lambda: agent.calls > calls + 1, 60, "the agent goes on")
        assert seen == ["pause", "resume", "resume", "pause", "resume"]


def test_acknowledge_silence_and_resolve(world: World, visit: Visit) -> None:
    """The worker applies each, the store has who did it, and the page shows it."""
    tracer = world.tracer(agent="looper")
    # The run goes on, because its end resolves the alert.
    with tracer.run(task="search") as run:
        loop(run)
        alert = world.alert_of(run.trace_id)
        visit.open(f"/alerts/{alert}")
        visit.text("Evidence")
        visit.enabled("Acknowledge")
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
        in_threads(
            lambda: wait_until(
                lambda: world.query(sql)[0]["state"] == "resolved", 60, "the resolved alert"
            )
        )
        assert world.query(sql)[0]["acknowledged_by"]
        visit.screenshot("resolved")
    tracer.close(30)
