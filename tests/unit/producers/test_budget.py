"""Budgets in the process:

what is set aside cannot be spent twice, and the step that does not fit does not begin.
"""
# The error comes out of a step in the middle of a run, so pytest.raises is around the whole run.
# ruff: noqa: PT012

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

import stepstream
from stepstream.producers.control.budget import Budget, BudgetLedger, BudgetWarning
from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.tracer import Tracer
from stepstream.schemas.alert import CommandStruct
from stepstream.schemas.settings import Settings
from tests.support.sdk import HandClock, Traced, logged, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


def test_a_budget_in_dollars_stops_the_call_that_does_not_fit(made: Traced) -> None:
    """What a call may cost is learnt from those before; the run is stopped by its budget, which is
    recorded as a step.
    """
    # The third call: 0.40 are used, and 0.20 is what the calls before cost.
    expected = r"\$0.60 with the next step would exceed the budget of \$0.50"
    with (
        pytest.raises(BudgetExceeded, match=expected) as caught,
        made.tracer.run(budget=Budget(usd=0.5)) as run,
    ):
        for number in range(9):
            with run.llm(f"call {number}", model="m") as step:
                step.set_cost("0.2")
    assert isinstance(caught.value, RunStopped)
    assert (caught.value.what, caught.value.by) == ("usd", "budget")
    ended = [event.name for event in made.events if event.phase == "end"]
    assert ended == ["call 0", "warn", "call 1", "stop", "support"]
    stop = made.ended["stop"]
    assert (stop.kind, stop.attributes["by"], stop.attributes["what"]) == (
        "control",
        "budget",
        "usd",
    )


def test_tokens_are_priced_when_the_step_ends(made: Traced) -> None:
    """Where no cost is given, model and tokens decide, as they do the worker."""
    with pytest.raises(BudgetExceeded), made.tracer.run(budget=Budget(usd="0.03")) as run:
        for number in range(9):
            with run.llm(f"call {number}", model="gpt-4o", provider="openai") as step:
                step.set_usage(input_tokens=2_000, output_tokens=500)
    assert sum(event.kind == "llm_call" for event in made.ended.values()) == 3  # a cent each


@pytest.mark.parametrize(
    ("budget", "what"),
    [(Budget(steps=3), "steps"), (Budget(tokens=350), "tokens"), (Budget(seconds=0.05), "seconds")],
)
def test_every_limit_stops(made: Traced, budget: Budget, what: str) -> None:
    """Steps, tokens and time alike; every later step is refused too, and that is recorded once."""
    with pytest.raises(BudgetExceeded) as caught, made.tracer.run(budget=budget) as run:
        for number in range(9):
            with run.llm(f"call {number}") as step:
                step.set_usage(input_tokens=100)
                time.sleep(0.02)
    assert caught.value.what == what
    assert [event.name for event in made.events].count("stop") == 1


def test_parallel_branches_cannot_overspend_together(made: Traced) -> None:
    """Twenty threads begin at the same moment; what is under way counts as spent."""
    # All check the budget before the first of them has used anything.
    gate = threading.Barrier(20)
    refused: list[int] = []

    def branch(number: int) -> None:
        gate.wait()
        try:
            with run.llm(f"call {number}", reserve_usd="0.1") as step:
                time.sleep(0.05)
                step.set_cost("0.1")
        except BudgetExceeded:
            refused.append(number)

    with made.tracer.run(budget=Budget(usd=1)) as run:
        threads = [threading.Thread(target=branch, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    calls = [event for event in made.ended.values() if event.kind == "llm_call"]
    assert len(calls) == 10
    assert sum((event.cost_usd or Decimal(0) for event in calls), Decimal(0)) == 1
    assert len(refused) == 10


def test_what_was_not_used_is_free_again(made: Traced) -> None:
    """A call that cost less than was set aside leaves room for more."""
    with made.tracer.run(budget=Budget(usd=1)) as run:
        for number in range(10):
            with run.llm(f"call {number}", reserve_usd="0.5") as step:
                step.set_cost("0.05")
    assert sum(event.kind == "llm_call" for event in made.ended.values()) == 10


def test_a_call_of_unknown_cost_counts_as_what_was_set_aside() -> None:
    """Unknown is unknown, never nothing:

    also that of a call that failed, which may have been paid for.
    """
    ledger = BudgetLedger(Budget(usd=1), HandClock().steady_ns)
    # Its cost is unknown: 0.6 stay used, so that the next 0.6 exceed the dollar.
    ledger.settle(ledger.reserve("llm_call", "m", usd="0.6"), None, None)
    with pytest.raises(BudgetExceeded):
        ledger.reserve("llm_call", "m", usd="0.6")


def test_a_warning_is_given_once_for_each_limit(made: Traced) -> None:
    """At the share that was asked for; an exception of the callback is logged."""
    heard: list[BudgetWarning] = []

    def warn(warning: BudgetWarning) -> None:
        heard.append(warning)
        raise ValueError("a bad callback")

    with made.tracer.run(budget=Budget(usd=1, steps=100, warn=0.5, on_warn=warn)) as run:
        for number in range(4):
            with run.tool(f"t{number}") as step:
                step.set_cost("0.2")
    assert [(w.what, w.used, w.limit) for w in heard] == [("usd", Decimal("0.6"), Decimal(1))]
    assert made.ended["warn"].attributes["reason"] == "0.6 of 1 usd are used"


def test_a_budget_inside_a_run_is_part_of_the_one_around_it(made: Traced) -> None:
    """The inner one may be used up alone; what it used counts outside too."""
    with made.tracer.run(budget=Budget(usd=1)) as run:
        with pytest.raises(BudgetExceeded), run.run("helper", budget=Budget(usd="0.3")) as helper:
            for _ in range(3):
                with helper.llm("call", reserve_usd="0.2") as step:
                    step.set_cost("0.2")
        with run.llm("own", reserve_usd="0.8") as step:
            step.set_cost("0.8")
        with pytest.raises(BudgetExceeded), run.llm("more", reserve_usd="0.1"):
            pass


def test_an_approval_makes_room(made: Traced) -> None:
    """What a person approves comes on top, and the run goes on."""
    with made.tracer.run(budget=Budget(usd=1)) as run:
        with pytest.raises(BudgetExceeded), run.tool("expensive", reserve_usd=3):
            pass
        engine = made.tracer.engine()
        assert engine is not None
        order = CommandStruct(
            command_id="c",
            action="resume",
            time=1,
            project="shop",
            trace_id=run.trace_id,
            budget_usd="5",
        )
        engine.commands.deliver(order)
        with run.tool("expensive", reserve_usd=3):
            pass
    assert {"stop", "approve $5", "expensive"} <= set(made.ended)


def test_a_step_that_never_began_gives_back_what_it_set_aside() -> None:
    """Refused by the budget around it, it costs the inner one nothing."""
    clock = HandClock()
    inner, outer = (
        BudgetLedger(Budget(usd=1, steps=9), clock.steady_ns),
        BudgetLedger(Budget(usd="0.1"), clock.steady_ns),
    )
    reservation = inner.reserve("llm_call", "m", usd="0.5")
    with pytest.raises(BudgetExceeded):
        outer.reserve("llm_call", "m", usd="0.5")
    inner.release(reservation)
    assert (inner.reserved["usd"], inner.used["steps"]) == (0, 0)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"usd": "lots"},
            "Budget(usd='lots') is ignored, so this limit is not enforced: write Budget(usd=0.50)",
        ),
        ({"usd": -1}, "write Budget(usd=0.50)"),
        ({"steps": -1}, "write Budget(steps=40)"),
        ({"warn": 0}, "write Budget(warn=0.8)"),
        ({"tokens": "x"}, "write Budget(tokens=100_000)"),
        ({"reserve_usd": "x"}, "write Budget(reserve_usd=0.05)"),
        ({"on_warn": 5}, "write Budget(on_warn=function)"),
        ({"max_usd": 3}, "no limit 'max_usd': did you mean 'usd'?"),
        ({"stpes": 3}, "no limit 'stpes': did you mean 'steps'?"),
    ],
)
def test_a_wrong_budget_is_logged_with_its_place(wrong: dict[str, Any], expected: str) -> None:
    """At once, with the place and what to write, and without raising; the other limits are kept."""
    with logged() as records:
        budget = stepstream.Budget(**{"seconds": 5, **wrong})
    (record,) = records
    assert expected in record.getMessage()
    assert f"(at {__file__}:" in record.getMessage()
    assert record.exc_info is None
    # A limit that cannot be read must not take the others with it.
    assert budget == stepstream.Budget(seconds=5)


def test_a_value_that_is_not_a_budget_is_logged_and_ignored(made: Traced) -> None:
    """A number in the place of a ``Budget`` does not break the agent."""
    with made.tracer.run(budget=0.5) as run, run.tool("x"):  # type: ignore[arg-type]
        pass
    assert "x" in made.ended


def test_a_call_without_usage_was_not_free(made: Traced) -> None:
    """Its reservation counts as used; a tool without usage cost nothing."""
    with made.tracer.run(budget=Budget(usd=1, reserve_usd="0.4")) as run:
        for name in ("a", "b"):
            # No usage is set: what a model call without usage cost is not known.
            with run.tool(f"tool {name}"), run.llm(name):
                pass
        with pytest.raises(BudgetExceeded), run.llm("c"):
            pass


def test_without_recording_a_budget_is_not_enforced_and_that_is_logged() -> None:
    """Otherwise the program would rely on it."""
    with logged() as records:
        tracer = Tracer(Settings(enabled=False))
        with tracer.run(budget=Budget(steps=0)) as run, run.tool("x"):
            pass
    assert ["budget" in record.getMessage() for record in records] == [True]
