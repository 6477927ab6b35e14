"""Exceptions inside a stage that are contained: counted, logged, and reported in one alert per
detector, not one per run.

None of them stops a partition. A detector that raises is off for the run in which it did. A run for
which something other than merging a record raises (publishing, timers, its state) has failed: it is
closed and its records go to the dead letter. Exceptions while a record is merged are not contained:
see ``poison``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.batches import UNREADABLE_BATCH
from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.times import HOUR_US
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import OffsetHold, Output

REPORT_EVERY_US: Final = 600_000_000
"""The same failure is logged and reported once in so much log time, in however many runs it
happens.
"""

MAX_KINDS: Final = 200
"""Different failures that are remembered at once; the oldest is forgotten and would be reported
again.
"""

DETECTOR_FAILED: Final = "detector-failed"
RULE_FAILED: Final = "rule-failed"
RUN_GIVEN_UP: Final = "run-given-up"
RESOLVED_WHEN_QUIET: Final = frozenset(
    {DETECTOR_FAILED, RULE_FAILED, RUN_GIVEN_UP, UNREADABLE_BATCH}
)
"""Alerts about the pipeline itself that no detector resolves: they are resolved when no finding
came for ``QUIET_PERIOD_US``.
"""
QUIET_PERIOD_US: Final = HOUR_US

LogText = Callable[[str], None]


class ContainedFailures:
    """The contained failures of one partition."""

    def __init__(
        self, topic: str, partition: int, counters: Counters, log_text: LogText = lambda _text: None
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._counters = counters
        self._log_text = log_text
        self._reported: dict[tuple[str, str], int] = {}

    def report_detector(
        self, rule: str, name: str, error: BaseException, now_us: int, about: str
    ) -> FindingStruct | None:
        """A detector raised. ``about`` is what it is off for now, e.g. a run. Returns the finding
        to send, if one is due.
        """
        self._counters.detector_errors[rule] += 1
        if not self._is_due(DETECTOR_FAILED, f"{rule}|{name}", now_us):
            return None
        subject = rule if name in ("", rule) else f"{rule} ({name})"
        self._log_text(f"detector {subject} raised and is off for {about}:\n{error_text(error)}")
        message = (
            f"the detector {subject} fails ({error_summary(error)}) and is off for each run, or "
            "agent, in which it failed; "
            "other detectors and other runs are not affected"
        )
        return self._finding(DETECTOR_FAILED, "detector_failed", subject, message, error, now_us)

    def rule(
        self, policy: str, alert: str, error: BaseException, now_us: int
    ) -> FindingStruct | None:
        """A rule of a policy had no result. Returns the finding to send, if one is due.

        The text of ``error`` is shown: it has nothing of the data.
        """
        self._counters.rule_errors[alert] += 1
        subject = f"{policy or 'default'}/{alert}"
        if not self._is_due(RULE_FAILED, subject, now_us):
            return None
        self._log_text(f"the rule {subject} had no result: {error}")
        message = (
            f"the rule {alert} of policy {policy} had no result: {error}; it is evaluated again "
            "with the next record"
        )
        return self._finding(RULE_FAILED, "rule_failed", subject, message, error, now_us)

    def run(self, trace_id: str, error: BaseException, now_us: int) -> FindingStruct | None:
        """Count a run that was given up while it was open. Returns the finding to send, if due."""
        return self._failed_run(
            trace_id, error, now_us, "its records that no state contains go to the dead letter"
        )

    def lost_run(self, trace_id: str, error: BaseException, now_us: int) -> FindingStruct | None:
        """Count a run whose state cannot be restored. Returns the finding to send, if one is
        due.
        """
        return self._failed_run(
            trace_id,
            error,
            now_us,
            "its state cannot be restored, so its trajectory ends at the last published revision",
        )

    def _failed_run(
        self, trace_id: str, error: BaseException, now_us: int, consequence: str
    ) -> FindingStruct | None:
        self._counters.runs_given_up += 1
        subject = f"{self._topic}/{self._partition}"
        if not self._is_due(RUN_GIVEN_UP, subject, now_us):
            return None
        self._log_text(f"{subject}: run {trace_id} has failed, {consequence}:\n{error_text(error)}")
        message = f"run {trace_id} of {subject} has failed ({error_summary(error)}): {consequence}"
        return self._finding(RUN_GIVEN_UP, "run_given_up", subject, message, error, now_us)

    def _is_due(self, what: str, key: str, now_us: int) -> bool:
        reported_us = self._reported.get((what, key))
        if reported_us is not None and now_us - reported_us < REPORT_EVERY_US:
            return False
        if reported_us is None and len(self._reported) >= MAX_KINDS:
            del self._reported[next(iter(self._reported))]
        self._reported[what, key] = now_us
        return True

    def _finding(
        self, alert: str, rule: str, subject: str, message: str, error: BaseException, now_us: int
    ) -> FindingStruct:
        return pipeline_finding(
            alert,
            rule,
            subject,
            message,
            now_us,
            quoted=repr(error)[:300],
            names=(alert, subject, self._topic, self._partition, now_us),
        )


def pipeline_output(finding: FindingStruct) -> Output:
    """The output for a finding about the pipeline; nothing waits for it."""
    return Output(
        "findings", finding.project.encode(), msgspec.json.encode(finding), owner=OffsetHold()
    )


def error_summary(error: BaseException) -> str:
    """The error's type and the line that raised it, and nothing of the data."""
    # The text of an exception may quote what a step contains, so it stays out of alerts.
    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f" in {frames[-1].name}, {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
        if frames
        else ""
    )
    return f"{type(error).__name__}{where}"


def error_text(error: BaseException) -> str:
    """The error with its traceback, for the log and for the dead letter."""
    # The end of a traceback names the error.
    return "".join(traceback.format_exception(error))[-8_000:].strip()
