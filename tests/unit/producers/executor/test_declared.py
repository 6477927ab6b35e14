"""Agents as a program declares them, and the errors of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

import stepstream
from stepstream.producers.executor.declared import Retry
from stepstream.producers.executor.loading import AppNotFound, load_app


def body(task: stepstream.Task) -> None:
    """The body of an agent."""


def test_a_declared_agent_is_sent_to_the_scheduler_as_it_is() -> None:
    app = stepstream.Executor("shop", lease="12s")

    @app.agent(
        "refund",
        version="v13",
        slots=4,
        timeout="10m",
        retry=Retry(3, on=(stepstream.Timeout, stepstream.LostLease, OSError), wait="2s..60s"),
        fallback="refund-lite",
        budget=stepstream.Budget(usd=0.50),
        key="session_id",
        on_busy="reject",
    )
    async def refund(task: stepstream.Task) -> None: ...

    (agent,) = app.agents
    spec = agent.spec
    assert agent.is_async
    assert (spec.name, spec.version, spec.slots, spec.timeout_us) == (
        "refund", "v13", 4, 600_000_000,
    )  # fmt: skip
    assert (spec.lease_us, spec.fallback, spec.budget_usd) == (12_000_000, "refund-lite", "0.5")
    assert (spec.key_field, spec.on_busy, spec.idempotent) == ("session_id", "reject", False)
    assert (spec.retry.attempts, spec.retry.on) == (3, ["timeout", "lost_lease", "OSError"])
    assert (spec.retry.wait_min_us, spec.retry.wait_max_us) == (2_000_000, 60_000_000)


def test_without_settings_nothing_is_repeated() -> None:
    app = stepstream.Executor()
    app.agent(body)
    (agent,) = app.agents
    assert (agent.spec.name, agent.task_type, agent.spec.retry.attempts) == ("body", "body", 1)
    assert agent.spec.retry.on == []
    assert Retry(2).on == ("exception",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slots": 0}, "slots=0: a whole number from 1"),
        ({"max_running": 0}, "leave it out for no limit"),
        ({"timeout": "-5s"}, "timeout='-5s': not a duration"),
        ({"timeout": 0}, "timeout=0: a duration of more than 0"),
        ({"timeout": "400d"}, "at most 30 days"),
        ({"lease": "1s"}, "lease='1s': from 3s to 1h"),
        ({"retry": 0}, "Retry(attempts=0): a whole number from 1 to 100"),
        ({"retry": "often"}, "write retry=Retry(3)"),
        ({"fallback": "refund"}, "fallback='refund' is the agent itself"),
        ({"budget": 0.5}, "write budget=Budget(usd=0.50)"),
        ({"key": "customer"}, "session_id, user_id, or input.NAME"),
        ({"on_busy": "enqeue"}, "did you mean enqueue?"),
        ({"isolation": "thred"}, "did you mean thread?"),
        ({"idempotent": 1}, "idempotent=1: True or False"),
        ({"version": 13}, "version=13: a text"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_write(given: Any, message: str) -> None:
    app = stepstream.Executor()
    with pytest.raises(ValueError, match=r"@app\.agent\('refund'\): ") as caught:
        app.agent("refund", **given)(body)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on": ValueError("x")}, "an exception class"),
        ({"on": "timout"}, "did you mean timeout?"),
        ({"wait": "soon"}, "or a range such as 2s..60s"),
        ({"wait": "60s..2s"}, "the first duration is longer"),
        ({"attempts": True}, "a whole number"),
    ],
)
def test_a_wrong_retry_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match="Retry") as caught:
        Retry(**given)
    assert message in str(caught.value)


def test_functions_that_are_no_agents() -> None:
    app = stepstream.Executor()

    def yields(task: stepstream.Task) -> Any:
        yield task

    def without() -> None: ...

    with pytest.raises(ValueError, match="yields values"):
        app.agent("a")(yields)
    with pytest.raises(ValueError, match="takes one argument, the task"):
        app.agent("a")(without)
    app.agent("a")(body)
    with pytest.raises(ValueError, match="agent a is declared twice"):
        app.agent("a")(body)
    with pytest.raises(ValueError, match="is no function"):
        app.ready(3)  # type: ignore[type-var]


def test_fallbacks_that_lead_back_are_refused() -> None:
    app = stepstream.Executor()
    app.agent("a", fallback="b")(body)
    app.agent("b", fallback="c")(body)
    with pytest.raises(ValueError, match="fallbacks lead back: a -> b -> c -> a"):
        app.agent("c", fallback="a")(body)
    assert [agent.spec.name for agent in app.agents] == ["a", "b"]


def test_an_agent_is_found_by_name_and_version() -> None:
    app = stepstream.Executor()
    app.agent("a", version="v1")(body)
    app.agent("a", version="v2")(body)
    found = [app.find("a", "v2"), app.find("a", ""), app.find("a", "v3"), app.find("b", "")]
    assert [one and one.label for one in found] == ["a@v2", "a@v1", None, None]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("agents.py:app", "such as agents:app"),
        ("no_such_module_here:app", "there is no module 'no_such_module_here'"),
        ("json:app", "json has no executor: write app = stepstream.Executor"),
        ("tests.support.executor_app:ap", "did you mean app?"),
    ],
)
def test_a_target_that_names_no_executor(target: str, message: str) -> None:
    with pytest.raises(AppNotFound, match=r"executor|module|write") as caught:
        load_app(target)
    assert message in str(caught.value)


def test_the_only_executor_of_a_module_needs_no_name() -> None:
    assert load_app("tests.support.executor_app").project == "shop"
