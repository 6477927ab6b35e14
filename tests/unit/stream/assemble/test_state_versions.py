"""State records as earlier versions wrote them: stored bytes, read by today's worker."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import pytest

from stepstream.common.commit_metadata import WORKER
from stepstream.stream.assemble.run_records import trajectory
from stepstream.stream.assemble.state import (
    STATE_VERSION,
    RunState,
    decode_state,
    encode,
    restore_run,
)
from stepstream.stream.baselines.normal import MEDIAN
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import Run
from tests.support.paths import GOLDEN

BOOK: Final = RuleBook((), make_detector)


VERSIONS: Final = (1, 2)


def golden(version: int) -> dict[str, Any]:
    """Records as a worker of that version wrote them, by what they are; never changed."""
    return dict(json.loads((GOLDEN / f"state-v{version}.json").read_text()))


def state(version: int, kind: str) -> RunState:
    return decode_state(base64.b64decode(golden(version)[kind]))


def restored(version: int, kind: str) -> Run:
    return restore_run(state(version, kind), BOOK)


def test_the_newest_version_and_the_one_before_it_are_kept() -> None:
    """A new version keeps its bytes here; those before the previous version may go."""
    assert VERSIONS[-1] == STATE_VERSION
    # A worker that is updated meets state records of the version before.
    assert VERSIONS[0] <= STATE_VERSION - 1
    assert [base64.b64decode(golden(version)["open"])[0] for version in VERSIONS] == list(VERSIONS)


def test_what_version_2_adds_is_absent_in_version_1() -> None:
    """A run from before there were baselines has none for as long as it is open."""
    normal = restored(2, "open").normal
    assert restored(1, "open").normal is None
    assert normal is not None
    assert (normal.owner.agent, normal.runs, normal.median(0)) == (
        "old",
        40,
        normal.amounts[0][MEDIAN],
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_open_run_goes_on(version: int) -> None:
    """Steps, costs to the nano-dollar, open steps, owner, and the rules that it began with."""
    run = restored(version, "open")
    got = trajectory(run)
    assert (
        got.steps,
        got.ended_steps,
        got.error_steps,
        got.cost_usd,
        got.input_tokens,
        got.duplicates,
    ) == (
        3,
        1,
        1,
        "0.500000001",
        100,
        1,
    )
    assert (run.merged_events, set(run.open), run.closed) == (3, {"1" * 16, "3" * 16}, False)
    assert (run.identity.agent, run.identity.task, run.identity.user_id) == ("old", "refund", "u1")
    assert {applied.rule.rule for applied in run.rules.applied} >= {"run_steps", "run_duration"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_closed_run_stays_closed(version: int) -> None:
    """With what was found and ended in it, and the order among its records that a restart needs."""
    run = restored(version, "closed")
    assert (run.closed, run.merged_events, run.cost_nanos) == (True, 2, 250_000_003)
    assert [(fired.alert, fired.resolved) for fired in run.fired.values()] == [
        ("run-duration", True)
    ]
    assert state(version, "closed").order == (2, 1, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_deferred_outputs_are_sent(version: int) -> None:
    """A finding that was written down before it was sent is still there to be sent."""
    (deferred,) = state(version, "announced").deferred
    assert deferred[:2] == ("findings", b"shop")
    assert json.loads(deferred[2])["alert"] == "run-duration"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["open", "closed", "announced"])
def test_written_again_it_is_the_same(version: int, kind: str) -> None:
    """What a worker of today writes of it is read as it was."""
    assert decode_state(encode(state(version, kind))) == state(version, kind)


def test_the_metadata_of_version_1_is_not_trusted() -> None:
    """It has no end, and clients read on: the whole state topic is read instead."""
    assert (WORKER.decode(golden(1)["safe_offset_metadata"]) or 0) == 0
    # 0 reads the whole topic: slower, and never too little.
    assert (WORKER.decode("1;state=17") or 0) == 0
