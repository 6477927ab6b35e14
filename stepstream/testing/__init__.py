"""What people test their own parts against.

Programs that use the SDK: what was recorded, in memory.

from stepstream.testing import recording

def test_my_agent() -> None:
    with recording() as recorded:
        answer("Where is order 7?")
    assert recorded.only_run().tools == ["lookup_order"]

Recorded runs, replayed: what a version does with what another one met.

from stepstream.testing import replaying

def test_the_refund_of_monday() -> None:
    with replaying("saved/refund.json") as replay:
        answer(replay.input)
    replay.assert_equal()

Detectors: their behaviour suite (it needs the extra ``worker``).

from stepstream.testing import DetectorCase, check_detector

def test_my_detector() -> None:
    rule = MyRule(rule="too_chatty")
    check_detector(DetectorCase("too chatty", rule, MyDetector, breaks=[...], calm=[...]))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepstream.testing.cases import DetectorCase, ended, root, started
    from stepstream.testing.detectors import (
        check_detector,
        check_duplicates,
        check_findings,
        check_order,
        check_restart,
        check_state,
        check_time,
    )
    from stepstream.testing.replay import Replay, ReplayDiverged, replaying
    from stepstream.testing.runs import Recorded, RecordedRun, recording
    from stepstream.testing.stubs import Stub, ToolFault, stubbed

__all__ = [
    "DetectorCase",
    "Recorded",
    "RecordedRun",
    "Replay",
    "ReplayDiverged",
    "Stub",
    "ToolFault",
    "check_detector",
    "check_duplicates",
    "check_findings",
    "check_order",
    "check_restart",
    "check_state",
    "check_time",
    "ended",
    "recording",
    "replaying",
    "root",
    "started",
    "stubbed",
]

# Loaded when they are used: a test of an agent needs nothing of the worker.
_MODULES = {
    **dict.fromkeys(("DetectorCase", "ended", "root", "started"), "cases"),
    **dict.fromkeys(("Recorded", "RecordedRun", "recording"), "runs"),
    **dict.fromkeys(("Stub", "ToolFault", "stubbed"), "stubs"),
    **dict.fromkeys(("Replay", "ReplayDiverged", "replaying"), "replay"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "detectors")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
