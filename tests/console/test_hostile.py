"""A run that is deeper than the stack of most programs is drawn by the served page."""

from __future__ import annotations

from tests.console.world import Visit, World, step


def test_1400_levels_are_drawn(world: World, visit: Visit) -> None:
    trace_id = world.send([step(n, n - 1 if n else None) for n in range(1_400)])
    world.stored(trace_id, 1_400)
    visit.open(f"/runs/{trace_id}")
    visit.rows().first.wait_for()
    visit.key("End")
    visit.page.wait_for_selector("[aria-level='1400']")
