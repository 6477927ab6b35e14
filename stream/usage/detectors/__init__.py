"""Detectors over windows of time.

The spending, failures, durations and silence of an agent's runs. Pure.
"""

from __future__ import annotations

from typing import Any

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import RULES, detector_for
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.windows.version_book import VersionBook

__all__ = ["Group", "WindowDetectorBase", "detector_for", "make_window_detector"]


def make_window_detector(rule: RuleBase, versions: VersionBook) -> WindowDetectorBase[Any]:
    """The detector of a rule over windows.

    Raises:
        UnknownExtensionError: the rule is not registered.
    """
    made: WindowDetectorBase[Any] = RULES.get(rule.rule).detector(rule, versions)
    return made
