"""Retrying: pauses that grow within bounds, one log line per outage, and an end when the caller
wants to stop.
"""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from stepstream.common.retry import (
    Backoff,
    Cancelled,
    OutageLog,
    retry,
    retry_in_thread,
)

LOGGER = logging.getLogger("stepstream.test")
FAST = Backoff(first_s=0.001, longest_s=0.002)


class FailsAtFirst:
    """An action that fails so often, then returns 7."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self._left = failures
        self._error = error

    def __call__(self) -> int:
        if self._left:
            self._left -= 1
            raise self._error("away")
        return 7


def test_pauses_double_within_bounds() -> None:
    """With jitter, so that processes do not come back all at once."""
    backoff = Backoff(first_s=0.1, longest_s=5.0)
    assert 0.05 <= backoff.pause_s(1) <= 0.1
    assert 0.1 <= backoff.pause_s(2) <= 0.2
    # 2 to the power of 2,000 is no float: the exponent has a bound as well.
    assert all(2.5 <= backoff.pause_s(failures) <= 5.0 for failures in (7, 50, 2_000))
    assert len({backoff.pause_s(5) for _ in range(20)}) > 1


def test_pauses_with_a_key_are_repeatable() -> None:
    backoff = Backoff(first_s=1.0, longest_s=300.0)
    assert backoff.pause_s(3, "ops") == backoff.pause_s(3, "ops")
    assert backoff.pause_s(3, "ops") != backoff.pause_s(3, "dev")


def test_an_outage_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand failures are two lines."""
    caplog.set_level(logging.INFO)
    outage = OutageLog("the store is away", LOGGER)
    for _ in range(1_000):
        outage.failed("refused")
    outage.over()
    outage.over()
    assert len(caplog.records) == 2
    assert outage.failures == 1_000


def test_what_fails_for_a_while_is_retried() -> None:
    outage = OutageLog("x", LOGGER)
    done = retry(FailsAtFirst(3), OSError, outage, stop=threading.Event(), backoff=FAST)
    assert (done, outage.failures) == (7, 3)
    outage = OutageLog("x", LOGGER)
    assert asyncio.run(retry_in_thread(FailsAtFirst(3), OSError, outage, backoff=FAST)) == 7
    assert outage.failures == 3


def test_other_errors_are_raised() -> None:
    with pytest.raises(ValueError, match="away"):
        retry(FailsAtFirst(1, ValueError), OSError, OutageLog("x", LOGGER), stop=threading.Event())


def test_a_caller_that_stops_is_not_kept_waiting() -> None:
    """The pause ends when ``stop`` is set."""
    stop = threading.Event()
    slow = Backoff(first_s=3_600, longest_s=3_600)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Cancelled):
        retry(FailsAtFirst(1_000), OSError, OutageLog("x", LOGGER), stop=stop, backoff=slow)
