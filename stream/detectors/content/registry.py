"""The detector of each rule about contents."""

from __future__ import annotations

from stepstream.schemas.rules_content import (
    FailureNotRetried,
    Forbidden,
    HiddenToolError,
    IrrelevantRetrieval,
    Repetition,
    SensitiveData,
    ToolArguments,
    UnsupportedAnswer,
)
from stepstream.stream.detectors.base import Detector
from stepstream.stream.detectors.content.arguments import ToolArgumentsDetector
from stepstream.stream.detectors.content.hidden_errors import HiddenToolErrorDetector
from stepstream.stream.detectors.content.not_retried import FailureNotRetriedDetector
from stepstream.stream.detectors.content.repetition import RepetitionDetector
from stepstream.stream.detectors.content.retrieval import (
    IrrelevantRetrievalDetector,
    UnsupportedAnswerDetector,
)
from stepstream.stream.detectors.content.unwanted import ForbiddenDetector, SensitiveDataDetector
from stepstream.stream.run.rules import Applied


def make_content_detector(applied: Applied) -> Detector | None:
    """The detector that judges by a rule about contents; None for other rules."""
    rule = applied.rule
    match rule:
        case HiddenToolError():
            return HiddenToolErrorDetector(applied, rule)
        case FailureNotRetried():
            return FailureNotRetriedDetector(applied, rule)
        case ToolArguments():
            return ToolArgumentsDetector(applied, rule)
        case IrrelevantRetrieval():
            return IrrelevantRetrievalDetector(applied, rule)
        case UnsupportedAnswer():
            return UnsupportedAnswerDetector(applied, rule)
        case Repetition():
            return RepetitionDetector(applied, rule)
        case Forbidden():
            return ForbiddenDetector(applied, rule)
        case SensitiveData():
            return SensitiveDataDetector(applied, rule)
        case _:
            return None
