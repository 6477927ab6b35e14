"""Detectors that judge windows of time: the spending, failures, durations and silence of an agent's runs. Pure."""

from __future__ import annotations

from stepstream.schemas.rules_windows import (
    ErrorSlo,
    LatencySlo,
    Silence,
    SpendSpike,
    SuccessDrop,
    VersionWorse,
    WindowRuleBase,
)
from stepstream.stream.usage.detectors.base import Group, WindowDetector
from stepstream.stream.usage.detectors.burn import error_burn, latency_burn
from stepstream.stream.usage.detectors.drop import SuccessDropDetector
from stepstream.stream.usage.detectors.silence import SilenceDetector
from stepstream.stream.usage.detectors.spike import SpendSpikeDetector
from stepstream.stream.usage.detectors.spike_model import SpikeModel
from stepstream.stream.usage.detectors.versions import VersionBook, VersionWorseDetector

__all__ = ["Group", "SpikeModel", "VersionBook", "WindowDetector", "make_window_detector"]


def make_window_detector(rule: WindowRuleBase, versions: VersionBook) -> WindowDetector:
    """The detector that judges by a rule. Raises ``TypeError`` for a rule that no detector judges groups by."""
    match rule:
        case ErrorSlo():
            return error_burn(rule)
        case LatencySlo():
            return latency_burn(rule)
        case SpendSpike():
            return SpendSpikeDetector(rule)
        case SuccessDrop():
            return SuccessDropDetector(rule)
        case Silence():
            return SilenceDetector(rule)
        case VersionWorse():
            return VersionWorseDetector(rule, versions)
        case _:
            raise TypeError(f"no detector judges groups by {type(rule).__name__}")
