"""The durable task that a run belongs to, in its trajectory."""

from __future__ import annotations

from stepstream.schemas.step import TASK_ATTRIBUTE
from tests.support.stream_bench import Bench, root, step


def test_a_run_states_its_task_and_attempt() -> None:
    """While it is open, after a restart, and when its end names no task."""
    bench = Bench()
    bench.send(step(2, "start", 1, tool="t"), 0)
    bench.send(root("start", 0, attributes={TASK_ATTRIBUTE: "order-7"}, attempt=2), 1)
    bench.wait(3)
    first = bench.values("trajectories")[-1]
    assert (first["task_id"], first["attempt"]) == ("order-7", 2)
    bench.swap()
    bench.send(step(2, "end", 1, 2, tool="t"), 4)
    bench.send(root("end", 0, 3), 5)
    bench.wait(20)
    last = bench.values("trajectories")[-1]
    assert (last["closed"], last["task_id"], last["attempt"]) == (True, "order-7", 2)


def test_a_run_without_a_task_has_no_attempt() -> None:
    """The number of a retry within a run is no attempt at a task."""
    bench = Bench()
    bench.send(root("start", 0, attempt=3), 0)
    bench.send(root("end", 0, 3, attempt=3), 1)
    bench.wait(20)
    found = bench.values("trajectories")[-1]
    assert (found.get("task_id", ""), found.get("attempt", 0)) == ("", 0)
