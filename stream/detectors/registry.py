"""The detector of each rule."""

from __future__ import annotations

from stepstream.schemas.rules_control import StopIgnored
from stepstream.schemas.rules_run import (
    HungStep,
    Loop,
    RunCost,
    RunDuration,
    RunSteps,
    RunTokens,
    StepDuration,
    StuckRun,
    ToolErrorIgnored,
    ToolErrorRecovered,
)
from stepstream.schemas.rules_spikes import (
    RunCostSpike,
    RunDurationSpike,
    RunStepsSpike,
    RunTokensSpike,
)
from stepstream.stream.detectors.base import Detector
from stepstream.stream.detectors.behaviour import LoopDetector, UnpricedModelDetector
from stepstream.stream.detectors.budgets import RunCostDetector, RunStepsDetector, RunTokensDetector
from stepstream.stream.detectors.content.registry import make_content_detector
from stepstream.stream.detectors.orders import StopIgnoredDetector
from stepstream.stream.detectors.spikes import (
    RunCostSpikeDetector,
    RunDurationSpikeDetector,
    RunStepsSpikeDetector,
    RunTokensSpikeDetector,
)
from stepstream.stream.detectors.time_limits import (
    HungStepDetector,
    RunDurationDetector,
    StepDurationDetector,
    StuckRunDetector,
)
from stepstream.stream.detectors.tool_errors import (
    ToolErrorIgnoredDetector,
    ToolErrorRecoveredDetector,
)
from stepstream.stream.run.rules import Applied


def make_detector(applied: Applied) -> Detector:
    """The detector that judges by a rule."""
    rule = applied.rule
    match rule:
        case RunCost():
            return RunCostDetector(applied, rule)
        case RunTokens():
            return RunTokensDetector(applied, rule)
        case RunSteps():
            return RunStepsDetector(applied, rule)
        case RunDuration():
            return RunDurationDetector(applied, rule)
        case StepDuration():
            return StepDurationDetector(applied, rule)
        case HungStep():
            return HungStepDetector(applied, rule)
        case StuckRun():
            return StuckRunDetector(applied, rule)
        case Loop():
            return LoopDetector(applied, rule)
        case ToolErrorIgnored():
            return ToolErrorIgnoredDetector(applied)
        case ToolErrorRecovered():
            return ToolErrorRecoveredDetector(applied)
        case StopIgnored():
            return StopIgnoredDetector(applied, rule)
        case RunCostSpike():
            return RunCostSpikeDetector(applied, rule)
        case RunTokensSpike():
            return RunTokensSpikeDetector(applied, rule)
        case RunStepsSpike():
            return RunStepsSpikeDetector(applied, rule)
        case RunDurationSpike():
            return RunDurationSpikeDetector(applied, rule)
        case _:
            return make_content_detector(applied) or UnpricedModelDetector(applied)
