"""What people do on the pages reaches agents and alerts, and its effect appears there."""

from __future__ import annotations

from tests.console.known_runs import loop
from tests.console.world import Visit, World, in_threads
from tests.support.processes import wait_until


def confirmed(visit: Visit, button: str, reason: str) -> None:
    """Agree in the dialog that is open, with a reason."""
    dialog = visit.page.get_by_role("dialog")
    dialog.wait_for()
    dialog.locator("input").fill(reason)
    dialog.get_by_role("button", name=button).click()


def test_acknowledge_silence_and_resolve(world: World, visit: Visit) -> None:
    """The worker applies each, the store has who did it, and the page shows it."""
    tracer = world.tracer(agent="looper")
    # The run goes on, because its end resolves the alert.
    with tracer.run(task="search") as run:
        loop(run)
        alert = world.alert_of(run.trace_id)
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
        in_threads(
            lambda: wait_until(
                lambda: world.query(sql)[0]["state"] == "resolved", 60, "the resolved alert"
            )
        )
        assert world.query(sql)[0]["acknowledged_by"]
        visit.screenshot("resolved")
    tracer.close(30)
