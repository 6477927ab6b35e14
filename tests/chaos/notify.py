"""Notifiers in a scenario: a receiver that sometimes fails, and what it got, in order."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stepstream.common.kafka import read_to_end
from stepstream.schemas.alert import SEVERITIES
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.chaos.truth import Truth
from tests.support.notifier import subscribe
from tests.support.processes import Process
from tests.support.receiver import Call, Receiver, receiver

FAILS = 0.05

_guard = threading.Lock()
_receivers: dict[tuple[str, str], Receiver] = {}
_open = ExitStack()


def notifier(settings: Settings, log: Path) -> Process:
    """A notifier; with the first one of a scenario comes the receiver, and its subscription."""
    with _guard:
        place = settings.kafka_brokers, settings.topic_prefix
        if place not in _receivers:
            dice = random.Random(11)
            found = _open.enter_context(
                receiver(status=lambda _call: 503 if dice.random() < FAILS else 200)
            )
            _receivers[place] = found
            subscribe(settings, "chaos", found.url)
    return Process("stepstream", settings, log, "notify")


class NotificationVerifier:
    """Compares what the receiver accepted with the alerts topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._receiver = _receivers[settings.kafka_brokers, settings.topic_prefix]
        self._wanted: dict[str, dict[str, Any]] = {}

    def is_settled(self, truth: Truth) -> bool:
        """Whether the current state of every alert was delivered."""
        return not self._missing()

    def problems(self, truth: Truth) -> list[str]:
        """Everything that is wrong."""
        wrong = self._missing()
        keys: dict[str, str] = {}
        for call in self._calls():
            content = json.dumps([(one["alert_id"], one["seq"]) for one in call.data["alerts"]])
            if keys.setdefault(call.headers["Idempotency-Key"], content) != content:
                wrong.append(
                    f"notify: the key {call.headers['Idempotency-Key']} came with different alerts"
                )
        for alert_id, delivered in self._delivered().items():
            if [seq for seq, _, _ in delivered] != sorted(seq for seq, _, _ in delivered):
                wrong.append(f"notify: {alert_id} was delivered out of order: {delivered}")
            if alert_id not in self._wanted:
                wrong.append(f"notify: {alert_id} was delivered and is not an alert")
        return wrong

    def counts(self) -> dict[str, int]:
        """What was compared, and how often a notification came twice."""
        keys = Counter(call.headers["Idempotency-Key"] for call in self._calls())
        twice = sum(count - 1 for count in keys.values())
        return {
            "alerts to deliver": len(self._wanted),
            "notifications": len(keys),
            "notifications again": twice,
        }

    def _missing(self) -> list[str]:
        self._wanted = self._alerts()
        delivered = self._delivered()
        return [
            f"notify: {alert_id} is {one['seq']} {one['state']} {one['severity']}, delivered was "
            f"{delivered.get(alert_id)}"
            for alert_id, one in self._wanted.items()
            if not _is_delivered(one, delivered.get(alert_id, []))
        ]

    def _alerts(self) -> dict[str, dict[str, Any]]:
        newest: dict[str, dict[str, Any]] = {}
        for message in read_to_end(self._settings, topic(self._settings.topic_prefix, "alerts")):
            if value := message.value():
                one = json.loads(value)
                if one["seq"] >= newest.get(one["alert_id"], one)["seq"]:
                    newest[one["alert_id"]] = one
        return newest

    def _calls(self) -> list[Call]:
        return [
            call
            for call in list(self._receiver.taken)
            if call.data["alerts"][0]["rule"] != "pipeline_stalled"
        ]

    def _delivered(self) -> dict[str, list[tuple[int, str, str]]]:
        found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for call in self._calls():
            for one in call.data["alerts"]:
                found[one["alert_id"]].append((one["seq"], one["state"], one["severity"]))
        return found


def _is_delivered(one: dict[str, Any], delivered: list[tuple[int, str, str]]) -> bool:
    """Whether the last delivery has the alert's state. An incident is delivered for its runs."""
    if not delivered:
        return bool(one.get("incident_id"))
    _, state, severity = delivered[-1]
    if state != one["state"]:
        return False
    return state == "resolved" or SEVERITIES.index(severity) >= SEVERITIES.index(one["severity"])
