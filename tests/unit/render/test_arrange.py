"""Any set of steps becomes a bounded tree."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stepstream.render.arrange import MAX_DEPTH, Line, arrange
from stepstream.render.rows import StepRow
from tests.support.operations import lines_executed


def step(
    number: int,
    parent: int = 0,
    *,
    start_us: int | None = None,
    cost: int | None = None,
    status: str = "ok",
) -> StepRow:
    start = number * 1_000 if start_us is None else start_us
    return StepRow(
        step_id=f"{number:016x}",
        parent_step_id=f"{parent:016x}" if parent else "",
        start_us=start,
        end_us=None if status == "running" else start + 500,
        kind="tool_call",
        name=f"step-{number}",
        cost_nanos=cost,
        status=status,
    )


def shown(lines: list[Line]) -> list[str]:
    return [line.step.step_id for line in lines if line.step]


def hidden(lines: list[Line]) -> int:
    return sum(line.hidden.steps for line in lines if line.hidden)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 45), st.integers(0, 9)), max_size=60),
    st.integers(1, 50),
    st.randoms(use_true_random=False),
)
def test_every_step_is_drawn_once_or_counted_as_hidden(
    shape: list[tuple[int, int, int]], limit: int, shuffle: random.Random
) -> None:
    """Circles, orphans, self-parents, repeats: every step is drawn once, within the limit."""
    steps = [step(number, parent, start_us=start) for number, parent, start in shape]
    distinct = len({one.step_id for one in steps})
    # Rows of the store come in any order.
    shuffle.shuffle(steps)
    lines = arrange(steps, limit=limit)
    assert len(set(shown(lines))) == len(shown(lines))
    assert len(shown(lines)) + hidden(lines) == distinct
    assert len(shown(lines)) <= limit + MAX_DEPTH  # the last one chosen brings its ancestors
    assert all(len(line.more) <= MAX_DEPTH for line in lines)


def test_siblings_stand_in_the_order_they_began() -> None:
    """The tree is read from top to bottom as time went."""
    lines = arrange([step(4, 1), step(1), step(3, 2), step(2, 1)])
    assert shown(lines) == [f"{n:016x}" for n in (1, 2, 3, 4)]
    assert [line.more for line in lines] == [(), (True,), (True, False), (False,)]


def test_misplaced_steps_show_the_reason() -> None:
    """A step without its parent, a second root and a circle are separate, each with its reason."""
    lines = arrange([step(1), step(2), step(3, 77), step(4, 5), step(5, 4)])
    notes = {line.step.step_id[-1]: line.note for line in lines if line.step}
    assert notes["1"] == ""
    assert notes["2"] == "another root"
    assert "never seen" in notes["3"]
    assert notes["4"] == "in a circle of parents"
    assert notes["5"] == ""


def test_an_ended_step_replaces_its_open_form() -> None:
    """A step that ended between two queries is drawn once, as ended."""
    lines = arrange([step(1, status="running"), step(1)])
    assert [line.step.open for line in lines if line.step] == [False]


def test_what_matters_stays_when_there_is_too_much() -> None:
    """Of many steps the failed, open, most expensive and alerted are drawn, with ancestors."""
    steps = [step(1), *(step(n, 1 + n % 7 if n > 8 else 1) for n in range(2, 5_000))]
    steps += [
        step(9_001, 4_000, status="error"),
        step(9_002, 4_500, cost=10**9),
        step(9_003, 4_700, status="running"),
    ]
    evidence = f"{3_333:016x}"
    lines = arrange(steps, limit=60, keep=frozenset({evidence}))
    drawn = set(shown(lines))
    assert {f"{n:016x}" for n in (1, 9_001, 9_002, 9_003, 4_000, 4_500, 4_700)} | {
        evidence
    } <= drawn
    assert len(drawn) + hidden(lines) == len(steps)


def test_fifty_thousand_steps_in_one_chain_are_drawn() -> None:
    """Depth costs no stack, and the work grows with the number of steps."""
    chains = {length: [step(n, n - 1) for n in range(1, length)] for length in (2_001, 4_001)}
    work = {
        length: lines_executed(lambda: arrange(steps, limit=200))  # noqa: B023 called at once
        for length, steps in chains.items()
    }
    assert work[4_001] < 2.2 * work[2_001]
    steps = [step(n, n - 1) for n in range(1, 50_001)]
    lines = arrange(steps, limit=200)
    assert len(shown(lines)) + hidden(lines) == 50_000
