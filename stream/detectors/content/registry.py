"""The detector of each rule about contents."""

from __future__ import annotations

from typing import cast

from stepstream.schemas.rules_content import (
    ContentRule,
    FailureNotRetried,
    HiddenToolError,
    Repetition,
)
from stepstream.stream.detectors.base import Detector
from stepstream.stream.detectors.content.hidden_errors import HiddenToolErrorDetector
from stepstream.stream.detectors.content.not_retried import FailureNotRetriedDetector
from stepstream.stream.detectors.content.repetition import RepetitionDetector
from stepstream.stream.rules import Applied


def make_content_detector(applied: Applied) -> Detector | None:
    """The detector that judges by a rule about contents; None for other rules."""
    rule = cast(ContentRule, applied.rule)
    match rule:
        case HiddenToolError():
            return HiddenToolErrorDetector(applied, rule)
        case FailureNotRetried():
            return FailureNotRetriedDetector(applied, rule)
        case Repetition():
            return RepetitionDetector(applied, rule)
        case _:
            return None
