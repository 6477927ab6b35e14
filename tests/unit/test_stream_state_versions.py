"""State records as earlier versions wrote them: bytes that were kept, read by the worker of today."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.stream.detectors import make_detector
from stepstream.stream.publish import trajectory
from stepstream.stream.rules import RuleBook
from stepstream.stream.run import Run
from stepstream.stream.state import RunState, decode_state, encode, parse_floor_metadata, restore_run

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden"
BOOK: Final = RuleBook((), make_detector)


def golden(name: str = "state-v1.json") -> dict[str, Any]:
    """Records as a worker of that version wrote them, by what they are; never changed."""
    return dict(json.loads((GOLDEN / name).read_text()))


def state(kind: str) -> RunState:
    return decode_state(base64.b64decode(golden()[kind]))


def restored(kind: str) -> Run:
    return restore_run(state(kind), BOOK)


def test_an_open_run_of_version_1_goes_on() -> None:
    """Steps, costs to the nano-dollar, what is open, whose it is, and the rules that it began with."""
    run = restored("open")
    got = trajectory(run)
    assert (got.steps, got.ended_steps, got.error_steps, got.cost_usd, got.input_tokens, got.duplicates) == (
        3,
        1,
        1,
        "0.500000001",
        100,
        1,
    )
    assert (run.phases, set(run.open), run.closed) == (3, {"1" * 16, "3" * 16}, False)
    assert (run.identity.agent, run.identity.task, run.identity.user_id) == ("old", "refund", "u1")
    assert {applied.rule.rule for applied in run.rules.applied} >= {"run_steps", "run_duration"}


def test_a_closed_run_of_version_1_stays_closed() -> None:
    """With what was found and ended in it, and the order among its records that a restart needs."""
    run = restored("closed")
    assert (run.closed, run.phases, run.cost_nanos) == (True, 2, 250_000_003)
    assert [(fired.alert, fired.resolved) for fired in run.fired.values()] == [("run-duration", True)]
    assert state("closed").order == (2, 1, 1)


def test_what_version_1_had_announced_is_told() -> None:
    """A finding that was written down before it was sent is still there to be sent."""
    (announced,) = state("announced").announced
    assert announced[:2] == ("findings", b"shop")
    assert json.loads(announced[2])["alert"] == "run-duration"


@pytest.mark.parametrize("kind", ["open", "closed", "announced"])
def test_written_again_it_says_the_same(kind: str) -> None:
    """What a worker of today writes of it is read as it was."""
    assert decode_state(encode(state(kind))) == state(kind)


def test_the_floor_of_version_1_is_understood() -> None:
    """What was committed beside a floor still says where the state topic must be read from."""
    assert parse_floor_metadata(golden()["floor_metadata"]) == 0
    assert parse_floor_metadata("1;state=17") == 17
