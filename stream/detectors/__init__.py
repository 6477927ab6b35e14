"""Detectors: small pure classes that follow a run step by step and report what is wrong with it.

This is also what other packages import that define a detector, see docs/detection.md.
"""

from __future__ import annotations

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import RULES, detector_for
from stepstream.stream.detectors.base import Detector, DetectorBase, Observation, Observations
from stepstream.stream.run.rules import Applied

__all__ = [
    "Detector",
    "DetectorBase",
    "Observation",
    "Observations",
    "RuleBase",
    "detector_for",
    "make_detector",
]


def make_detector(applied: Applied) -> Detector:
    """The detector of a rule.

    Raises:
        UnknownExtensionError: the rule is not registered.
    """
    made: Detector = RULES.get(applied.rule.rule).detector(applied)
    return made
