"""The scheduler against a naive model, in any sequence of records, times and restarts.

The model knows nothing of queues: after each step it checks what must always be true of what was
published. At the end everything is allowed to finish, and has to.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from stepstream.schemas.task_bindings import RunAttempt
from stepstream.schemas.task_state import FINAL, TaskStateStruct
from tests.support.task_world import SECOND, TaskWorld, agent

RETRY: Final[dict[str, Any]] = {
    "attempts": 2,
    "on": ["exception", "timeout", "lost_lease"],
    "wait_max_us": SECOND,
}
AGENTS: Final = (
    # Never repeated after its start; at most two at a time over all executors.
    agent("plain", max_running=2, timeout_us=90 * SECOND),
    agent("retried", retry=RETRY, slots=1, fallback="plain"),
    agent("keyed", key_field="user_id", idempotent=True),
)
SLOTS: Final = 2
NAMES: Final = ("plain", "retried", "keyed")


class Scheduling(RuleBasedStateMachine):
    tasks = Bundle("tasks")

    @initialize()
    def begin(self) -> None:
        self.world = TaskWorld()
        self.numbers = 0
        self.executors: set[str] = set()
        self.left: set[str] = set()
        self.claimed: dict[int, RunAttempt] = {}
        self.ended_ok: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.seen_runs = 0
        self.finals: dict[str, str] = {}

    # -- what may happen -------------------------------------------------------------------------

    @rule()
    def executor_joins(self) -> None:
        if len(self.executors - self.left) < 3:
            name = f"e{len(self.executors)}"
            self.executors.add(name)
            self.world.hello(name, *AGENTS, slots=SLOTS)

    @rule(
        target=tasks,
        name=st.sampled_from(NAMES),
        priority=st.integers(0, 9),
        delay_s=st.sampled_from([0, 0, 0, 5]),
        deadline_s=st.sampled_from([0, 0, 0, 60]),
        user=st.sampled_from(["a", "b"]),
    )
    def submit(self, name: str, priority: int, delay_s: int, deadline_s: int, user: str) -> Any:
        self.numbers += 1
        task_id = f"t{self.numbers}"
        self.world.submit(
            task_id,
            agent=name,
            priority=priority,
            delay_us=delay_s * SECOND,
            deadline_us=deadline_s * SECOND,
            user_id=user,
        )
        return task_id

    @rule(task=tasks, count=st.integers(1, 2))
    def submit_after(self, task: str, count: int) -> None:
        self.numbers += 1
        self.world.submit(f"t{self.numbers}", agent="plain", after=[task])

    @rule(task=tasks)
    def submit_again(self, task: str) -> None:
        before = self.world.task(task)
        self.world.submit(task, agent=before.agent)

    @rule(task=tasks)
    def submit_other_input(self, task: str) -> None:
        refusals = len(self.world.refusals())
        self.world.submit(task, agent="plain", input="other")
        assert len(self.world.refusals()) == refusals + 1

    @rule(task=tasks)
    def cancel(self, task: str) -> None:
        self.cancelled.add(task)
        self.world.cancel(task)

    def current(self) -> list[RunAttempt]:
        """Attempts that executors were given and have not ended, the stale ones included."""
        return [run for run in self.world.runs() if run.executor_id not in self.left]

    @precondition(lambda self: self.current())
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.current()))
        self.claimed[run.fence] = run
        self.world.claim(run)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), status=st.sampled_from(["ok", "ok", "failed", "timed_out", "cancelled"]))
    def end(self, data: st.DataObject, status: str) -> None:
        run = self.claimed[data.draw(st.sampled_from(sorted(self.claimed)))]
        before = self.world.task(run.task_id)
        self.world.end(run, status, error_type="E" if status == "failed" else "")
        if status == "ok" and before.state in ("bound", "running") and before.fence == run.fence:
            self.ended_ok[run.task_id] = self.ended_ok.get(run.task_id, 0) + 1
            assert self.world.task(run.task_id).state == "ok"

    @precondition(lambda self: self.current())
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.current()))
        if run.fence not in self.claimed:
            self.world.end(run, "refused")

    @rule(seconds=st.sampled_from([1, 10, 50]), alive=st.booleans())
    def wait(self, seconds: int, alive: bool) -> None:
        beats = tuple(sorted(self.executors - self.left)) if alive else ()
        self.world.wait(seconds, beats=beats, step_s=1.5)

    @precondition(lambda self: self.executors - self.left)
    @rule(data=st.data())
    def executor_leaves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.executors - self.left)))
        self.left.add(name)
        self.world.leave(name)

    @rule(from_the_beginning=st.booleans())
    def restart(self, from_the_beginning: bool) -> None:
        self.world.restart(position=0 if from_the_beginning else None)

    @rule()
    def brokers_fail(self) -> None:
        self.world.stage.delay_timers()

    # -- what must be true -----------------------------------------------------------------------

    @invariant()
    def nothing_runs_beyond_its_limits(self) -> None:
        if not hasattr(self, "world"):
            return
        placed = [task for task in self.world.live().values() if task.state != "waiting"]
        assert all(task.executor_id for task in placed)
        of_executors = Counter(task.executor_id for task in placed)
        assert all(count <= SLOTS for count in of_executors.values())
        on_executors = Counter((task.executor_id, task.run_agent) for task in placed)
        assert all(count <= 1 for (_, name), count in on_executors.items() if name == "retried")
        assert sum(task.run_agent == "plain" for task in placed) <= 2
        keys = Counter(task.key for task in placed if task.key)
        assert all(count == 1 for count in keys.values())

    @invariant()
    def the_slots_of_the_fleet_are_those_of_the_tasks(self) -> None:
        if not hasattr(self, "world") or not self.world.stage.projects:
            return
        project = self.world.stage.projects["shop"]
        for executor in project.fleet.executors.values():
            placed = {
                task.task_id
                for task in project.tasks.values()
                if task.state != "waiting" and task.executor_id == executor.id
            }
            assert set(executor.running) == placed

    @invariant()
    def fencing_numbers_grow_and_are_unique(self) -> None:
        if not hasattr(self, "world"):
            return
        new: dict[tuple[str, int], int] = {}
        for run in self.world.runs():
            known = new.setdefault((run.task_id, run.attempt), run.fence)
            assert known == run.fence
        for task_id in {run.task_id for run in self.world.runs()}:
            fences = [run.fence for run in self.world.runs(task_id)]
            assert fences == sorted(fences)

    @invariant()
    def tasks_end_once(self) -> None:
        if not hasattr(self, "world"):
            return
        assert all(count == 1 for count in self.ended_ok.values())
        for state in self.world.states[self.seen_runs :]:
            if isinstance(state, TaskStateStruct) and state.state in FINAL:
                assert self.finals.setdefault(state.task_id, state.state) == state.state
        self.seen_runs = len(self.world.states)

    @invariant()
    def nothing_starts_twice_by_default(self) -> None:
        """``plain`` has no retry: once an attempt of it was taken as started, none follows."""
        if not hasattr(self, "world"):
            return
        for task_id, ended in Counter(
            state.task_id
            for state in self.world.states
            if isinstance(state, TaskStateStruct)
            and state.agent == "plain"
            and state.event == "started"
        ).items():
            assert ended == 1, task_id

    def teardown(self) -> None:
        """With an executor that runs everything, every task reaches a final state."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.hello("last", *AGENTS, slots=SLOTS)
        self.left |= self.executors
        for name in sorted(self.executors):
            world.leave(name)
        for _ in range(400):
            if not world.live():
                break
            for task in list(world.live().values()):
                if task.state != "waiting" and task.executor_id == "last":
                    run = world.runs(task.task_id)[-1]
                    world.claim(run)
                    world.end(run)
            world.wait(10, beats=("last",), step_s=1.5)
        assert world.live() == {}, [(t.task_id, t.waiting_for) for t in world.live().values()]
        assert world.stage.offsets.safe == len(world.log)
        assert world.letters == []


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
