"""What failed inside a stage and was contained: counted, logged, and told in one alert per detector, not one per run.

Nothing here stops a partition. A detector that raises is off for the run in which it did; a run whose bookkeeping raises is
given up and its records go to the dead letter.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.batches import UNREADABLE_BATCH, pipeline_finding
from stepstream.schemas.times import HOUR_US
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import OffsetHold, Output

TELL_EVERY_US: Final = 600_000_000
"""The same failure is logged and told once in so much log time, however many runs meet it."""

MAX_KINDS: Final = 200
"""Different failures that are remembered at once; the oldest is forgotten, and would be told again."""

DETECTOR_FAILED: Final = "detector-failed"
RUN_GIVEN_UP: Final = "run-given-up"
ENDED_BY_SILENCE: Final = frozenset({DETECTOR_FAILED, RUN_GIVEN_UP, UNREADABLE_BATCH})
"""Alerts about the pipeline itself that no finding resolves: they end when nothing more was told for ``SILENCE_US``."""
SILENCE_US: Final = HOUR_US

LogText = Callable[[str], None]


class ContainedFailures:
    """Those of one partition. ``tell`` takes what is to be logged."""

    def __init__(
        self, topic: str, partition: int, counters: Counters, tell: LogText = lambda _text: None
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._counters = counters
        self._tell = tell
        self._told: dict[tuple[str, str], int] = {}

    def detector(
        self, rule: str, name: str, error: BaseException, now_us: int, about: str
    ) -> FindingStruct | None:
        """A detector raised. ``about`` says for what it is off now. Returns the finding to be sent, if it is time for one."""
        self._counters.detector_errors[rule] += 1
        if not self._is_news(DETECTOR_FAILED, f"{rule}|{name}", now_us):
            return None
        subject = rule if name in ("", rule) else f"{rule} ({name})"
        self._tell(f"detector {subject} raised and is off for {about}:\n{error_text(error)}")
        message = (
            f"the detector {subject} fails ({error_summary(error)}) and is off for each run, or agent, in which it failed; "
            "other detectors and other runs go on"
        )
        return self._finding(DETECTOR_FAILED, "detector_failed", subject, message, error, now_us)

    def run(self, trace_id: str, error: BaseException, now_us: int) -> FindingStruct | None:
        """A run's own bookkeeping raised. Returns the finding to be sent, if it is time for one."""
        self._counters.runs_given_up += 1
        subject = f"{self._topic}/{self._partition}"
        if not self._is_news(RUN_GIVEN_UP, subject, now_us):
            return None
        self._tell(
            f"{subject}: run {trace_id} is given up, its records go to the dead letter:\n{error_text(error)}"
        )
        message = f"run {trace_id} of {subject} was given up ({error_summary(error)}): its records are in the dead letter"
        return self._finding(RUN_GIVEN_UP, "run_given_up", subject, message, error, now_us)

    def _is_news(self, what: str, key: str, now_us: int) -> bool:
        told_us = self._told.get((what, key))
        if told_us is not None and now_us - told_us < TELL_EVERY_US:
            return False
        if told_us is None and len(self._told) >= MAX_KINDS:
            del self._told[next(iter(self._told))]
        self._told[what, key] = now_us
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
            names=(self._topic, self._partition, now_us),
        )


def pipeline_output(finding: FindingStruct) -> Output:
    """A finding about the pipeline as it is sent; nothing waits for it."""
    return Output(
        "findings", finding.project.encode(), msgspec.json.encode(finding), owner=OffsetHold()
    )


def error_summary(error: BaseException) -> str:
    """The error's type and the line that raised it: nothing of the data that it was raised about."""
    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f" in {frames[-1].name}, {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
        if frames
        else ""
    )
    return f"{type(error).__name__}{where}"


def error_text(error: BaseException) -> str:
    """The error with its traceback, for the log and for the dead letter."""
    return "".join(traceback.format_exception(error))[-8_000:].strip()
