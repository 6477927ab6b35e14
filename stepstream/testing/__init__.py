"""What people test their own parts against.

The behaviour suite of detectors (it needs the extra ``worker``).

from stepstream.testing import DetectorCase, check_detector

def test_my_detector() -> None:
    rule = MyRule(rule="too_chatty")
    check_detector(DetectorCase("too chatty", rule, MyDetector, breaks=[...], calm=[...]))
"""

from __future__ import annotations

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

__all__ = [
    "DetectorCase",
    "check_detector",
    "check_duplicates",
    "check_findings",
    "check_order",
    "check_restart",
    "check_state",
    "check_time",
    "ended",
    "root",
    "started",
]
