"""Agents of real frameworks recorded, and replayed strictly with what they called taken away."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepstream.testing import recording, replaying
from tests.frameworks import replayed_agents as agents

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),
]
QUESTION = "where is order 7?"
AGENTS: dict[str, tuple[Callable[[str], str], str, list[str]]] = {
    "pydantic_ai": (agents.pydantic_ai, "pydantic_ai", ["look_up"]),
    "langgraph": (agents.langgraph, "langgraph", ["ask", "look_up"]),
    "openai_agents": (agents.openai_agents, "agents", ["look_up"]),
}


def recorded(agent: Callable[[str], str], folder: Path) -> Path:
    with recording(recordings=str(folder)):
        assert "shipped" in agent(QUESTION)
    (file,) = folder.glob("*.jsonl")
    return file


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection to another machine can be opened."""

    def refused(_socket: Any, address: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize("name", AGENTS)
def test_a_recorded_run_is_replayed_without_its_calls(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, package, calls = AGENTS[name]
    pytest.importorskip(package)
    file = recorded(agent, tmp_path)
    # What the tool would find now: the replay serves what it found then.
    monkeypatch.setattr(agents, "STATE", ["lost"])
    with replaying(file) as replay:
        assert "shipped" in agent(replay.input)
    replay.assert_equal()
    assert (replay.calls, replay.made_live) == (len(calls), 0)
    steps = [event for event in replay.recorded.events if event.phase == "end"]
    assert [step.name for step in steps if step.name in calls] == calls


@pytest.mark.parametrize("name", AGENTS)
def test_a_changed_call_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, package, _ = AGENTS[name]
    pytest.importorskip(package)
    file = recorded(agent, tmp_path)
    before = agents.look_up
    # A version that asks for another order than its model chose.
    monkeypatch.setattr(agents, "look_up", lambda order: before(order + 1))
    with replaying(file) as replay:
        with pytest.raises(BaseException) as raised:  # noqa: PT011 - frameworks may wrap it
            agent(replay.input)
        assert raised.value is not None
    assert "look_up" in replay.divergence
    assert "argument order is" in replay.divergence
