"""Kafka, the store or the console are killed: the page states how old its data is, and heals."""

from __future__ import annotations

import os
import signal

import pytest

from tests.console.known_runs import KnownRuns
from tests.console.world import Agent, Visit, World

# What a browser logs about requests that failed meanwhile.
FAILED = ("Failed to load resource", "ERR_", "404")


def kill(world: World, engine: str) -> None:
    """SIGKILL; the supervisor starts it again after a pause."""
    for pid in world.pipeline.pids()[engine]:
        os.kill(pid, signal.SIGKILL)


def same(visit: Visit) -> None:
    """The page was not loaded again."""
    assert visit.page.evaluate("window.same")


@pytest.fixture
def followed(world: World, visit: Visit, runs: KnownRuns) -> Visit:
    visit.expected = FAILED
    return visit


def test_the_store_is_killed(world: World, followed: Visit) -> None:
    """The open run goes on from Kafka meanwhile, and can be stopped."""
    visit = followed
    with Agent(world) as agent:
        visit.open(f"/runs/{agent.trace_id}")
        visit.until_steps("> 3")
        visit.page.evaluate("window.same = true")
        kill(world, "clickhouse")
        visit.text("The store has not answered since")
        visit.screenshot("store-away")
        visit.until_steps(f"> {visit.steps_shown() + 5}")
        visit.gone("The store has not answered since")
        visit.live()
        visit.until_steps(f"> {visit.steps_shown() + 5}")
        same(visit)


def test_kafka_is_killed(world: World, followed: Visit) -> None:
    """Actions that need it are off meanwhile; the agent's steps appear when it is back."""
    visit = followed
    with Agent(world) as agent:
        visit.open(f"/runs/{agent.trace_id}")
        visit.until_steps("> 3")
        visit.page.evaluate("window.same = true")
        kill(world, "kafka")
        visit.text("Kafka does not answer.")
        visit.text("Data as of")
        assert visit.button("Stop").is_disabled()
        visit.screenshot("kafka-away")
        visit.gone("Kafka does not answer.")
        visit.live()
        visit.until_steps(f"> {visit.steps_shown() + 20}")
        same(visit)
        agent.end()
        visit.until_steps(f"=== {agent.steps}")


def test_the_console_is_killed(world: World, followed: Visit) -> None:
    """The session is still valid, and no step is missed."""
    visit = followed
    with Agent(world) as agent:
        visit.open(f"/runs/{agent.trace_id}")
        visit.until_steps("> 3")
        visit.page.evaluate("window.same = true")
        world.pipeline.kill("console")
        visit.text("No answer from the console since")
        visit.gone("No answer from the console since")
        visit.live()
        visit.until_steps(f"> {visit.steps_shown() + 5}")
        same(visit)
        agent.end()
        visit.until_steps(f"=== {agent.steps}")
