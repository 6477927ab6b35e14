"""The alerts of the demo, received by ``on_alert``, and how long each took."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from statistics import median

from examples.demo.ledger import Account, Ledger
from examples.demo.scenarios import DEADLINE_US, HUNG_AFTER_US, STEP_LIMIT_US
from stepstream.schemas.alert import Alert
from stepstream.schemas.settings import Settings
from stepstream.sinks.subscribe import on_alert

# The rules that fire when a time has passed, and that time.
TIMED = {"run_duration": DEADLINE_US, "step_duration": STEP_LIMIT_US, "hung_step": HUNG_AFTER_US}


@dataclass(frozen=True)
class ReceivedAlert:
    """An alert, and its latency from its cause (an event or a deadline) to this program."""

    alert: Alert
    latency_us: int | None
    timed: bool


class AlertLog:
    """Listens until it is closed."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._received: list[ReceivedAlert] = []
        # From the earliest: the first alert may be raised before the subscription is ready.
        self._listener = on_alert(self._note, settings=settings, since="earliest")

    @property
    def received(self) -> list[ReceivedAlert]:
        """All alerts so far, in the order of arrival; a changed alert arrives again."""
        with self._lock:
            return list(self._received)

    @property
    def first(self) -> list[ReceivedAlert]:
        """The first record of each alert."""
        return [one for one in self.received if one.alert.seq == 1]

    def latencies_us(self, *, timed: bool) -> list[int]:
        """Latencies of new alerts, either of those with a deadline or of those with an event."""
        return sorted(
            one.latency_us
            for one in self.first
            if one.timed is timed and one.latency_us is not None
        )

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _note(self, alert: Alert) -> None:
        received_us = time.time_ns() // 1_000
        account = self._ledger.account(alert.trace_id)
        # Only the first record of an alert has a cause whose time is known here.
        cause = cause_us(alert, account) if account is not None and alert.seq == 1 else None
        with self._lock:
            self._received.append(
                ReceivedAlert(
                    alert, None if cause is None else received_us - cause, alert.rule in TIMED
                )
            )


def cause_us(alert: Alert, account: Account) -> int | None:
    """The time of the alert's cause: its deadline, or the last event before it was raised.

    The worker's clock is Kafka's append time in whole milliseconds, hence the allowance.
    """
    last = account.last_event_until(alert.opened_at + 1_000)
    if alert.rule == "run_duration":
        return account.began_us + DEADLINE_US
    if alert.rule == "hung_step":
        return None if last is None else last + HUNG_AFTER_US
    if alert.rule == "step_duration":
        return (
            alert.opened_at
            if alert.value is None
            else alert.opened_at - max(0, round(alert.value) - STEP_LIMIT_US)
        )
    return last


def summary(latencies_us: list[int]) -> str:
    """``median 31 ms, slowest 80 ms``."""
    if not latencies_us:
        return "none"
    middle, slowest = median(latencies_us) / 1_000, latencies_us[-1] / 1_000
    return f"median {middle:.0f} ms, slowest {slowest:.0f} ms ({len(latencies_us)})"
