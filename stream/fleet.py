"""The fleet stage of one partition of findings: groups findings into alerts. Pure; the only writer of alerts.

A group is one trouble: project, environment, agent, alert, run and subject. Its alert is published again as findings
come, with the next ``seq``. State is the alerts topic itself: each record names the last finding merged into it, so a
replay below that offset, and a finding seen before by id, change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from stepstream.schemas.alert import SEVERITIES, AlertStruct, FindingStruct
from stepstream.schemas.ids import derived_id
from stepstream.stream.counters import Counters
from stepstream.stream.deadletter import dead_letter_headers
from stepstream.stream.floor import Floor
from stepstream.stream.outputs import Hold, Output
from stepstream.stream.records import Record

MAX_FINDING_IDS: Final = 64
MAX_STEP_IDS: Final = 20
KEEP_RESOLVED: Final = 100_000

GroupKey = tuple[str, str, str, str, str, str]

_decode = msgspec.json.Decoder(FindingStruct).decode
_encode = msgspec.json.Encoder().encode


class FleetPartition:
    """Alerts of the projects whose findings are on one partition."""

    def __init__(self, partition: int, counters: Counters | None = None) -> None:
        self.partition = partition
        self.counters = counters or Counters()
        self.floor = Floor()
        self._alerts: dict[GroupKey, AlertStruct] = {}
        self._outbox: list[Output] = []

    def restore(self, alerts: Iterable[AlertStruct], floor: int) -> None:
        """Take over the newest record of each group's alert."""
        self.floor.position = floor
        for alert in alerts:
            known = self._alerts.get(group_of(alert))
            if known is None or (alert.opened_at, alert.seq) > (known.opened_at, known.seq):
                self._alerts[group_of(alert)] = alert

    def feed(self, record: Record) -> None:
        """Process one record of the findings topic."""
        if record.offset < self.floor.position:
            return
        self.floor.position = record.offset + 1
        try:
            finding = _decode(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._reject(record, "malformed_json", str(error)[:200])
            return
        alert = self._merge(finding, record.offset)
        if alert is not None:
            self.counters.alerts += 1
            self._alerts[group_of(alert)] = alert
            output = Output("alerts", alert.alert_id.encode(), _encode(alert), partition=self.partition)
            output.born_us = record.timestamp * 1000
            self._send(record.offset, output)
            self._bound()

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record that processing failed on, again and again."""
        self.floor.position = record.offset + 1
        self._reject(record, "poison", detail)

    def _reject(self, record: Record, reason: str, detail: str) -> None:
        self.counters.rejected[reason] += 1
        headers = dead_letter_headers(record, "findings", self.partition, reason, detail)
        self._send(record.offset, Output("deadletter", record.key, record.value, headers=headers))

    def tick(self, time_us: int) -> None:
        """Nothing here waits for time to pass."""

    def disturb(self) -> None:
        """Nothing here waits for time to pass."""

    def flush(self) -> None:
        """Nothing is held back until the end of a batch."""

    def drain(self) -> list[Output]:
        """What is to be sent now, in order."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``drain`` returned."""
        self.floor.release(output.holder)

    def _send(self, offset: int, output: Output) -> None:
        output.holder = Hold()
        self.floor.hold(output.holder, offset)
        self._outbox.append(output)

    def _merge(self, finding: FindingStruct, offset: int) -> AlertStruct | None:
        """The group's next alert record, or None when the finding changes nothing."""
        current = self._alerts.get(group_of(finding))
        if current is not None and (
            finding.finding_id in current.finding_ids
            or (current.source_partition == self.partition and offset <= current.source_offset)
        ):
            return None
        is_open = current is not None and current.state == "firing"
        if finding.state == "firing":
            merged = grown(current, finding) if current is not None and is_open else opened(finding, current)
        elif current is not None and is_open:
            merged = changed(current, finding)
        else:
            return None
        merged.source_partition, merged.source_offset = self.partition, offset
        return merged

    def _bound(self) -> None:
        """Forget the oldest resolved alerts when there are too many."""
        if len(self._alerts) > 2 * KEEP_RESOLVED:
            resolved = sorted((a.updated_at, key) for key, a in self._alerts.items() if a.state == "resolved")
            for _, key in resolved[: len(self._alerts) - KEEP_RESOLVED]:
                del self._alerts[key]


def group_of(item: FindingStruct | AlertStruct) -> GroupKey:
    """What makes findings one trouble."""
    return (item.project, item.environment, item.agent, item.alert, item.trace_id, item.subject)


def opened(finding: FindingStruct, before: AlertStruct | None = None) -> AlertStruct:
    """The first record of an alert. What was merged into the one ``before`` it is still known when it comes again."""
    return AlertStruct(
        alert_id=derived_id("alert", *group_of(finding), finding.time),
        seq=1,
        state="firing",
        severity=finding.severity,
        alert=finding.alert,
        rule=finding.rule,
        policy=finding.policy,
        project=finding.project,
        environment=finding.environment,
        agent=finding.agent,
        agent_version=finding.agent_version,
        task=finding.task,
        trace_id=finding.trace_id,
        subject=finding.subject,
        step_ids=finding.step_ids[:MAX_STEP_IDS],
        value=finding.value,
        threshold=finding.threshold,
        unit=finding.unit,
        baseline=finding.baseline,
        baseline_runs=finding.baseline_runs,
        message=finding.message,
        detail=finding.detail,
        running=finding.running,
        opened_at=finding.time,
        updated_at=finding.time,
        action=finding.action,
        finding_ids=[*(before.finding_ids if before is not None else ()), finding.finding_id][-MAX_FINDING_IDS:],
    )


def grown(alert: AlertStruct, finding: FindingStruct) -> AlertStruct:
    """The alert with one more firing finding: the worst severity, the newest words, all the evidence."""
    worse = max(alert.severity, finding.severity, key=SEVERITIES.index)
    steps = list(dict.fromkeys([*alert.step_ids, *finding.step_ids]))[:MAX_STEP_IDS]
    return _with(
        alert,
        seq=alert.seq + 1,
        severity=worse,
        step_ids=steps,
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
        detail=finding.detail or alert.detail,
        running=finding.running,
        findings=alert.findings + 1,
        updated_at=max(alert.updated_at, finding.time),
        action=finding.action or alert.action,
        finding_ids=[*alert.finding_ids, finding.finding_id][-MAX_FINDING_IDS:],
    )


def changed(alert: AlertStruct, finding: FindingStruct) -> AlertStruct:
    """The alert after it was resolved, acknowledged or silenced."""
    at = max(alert.updated_at, finding.time)
    ids = [*alert.finding_ids, finding.finding_id][-MAX_FINDING_IDS:]
    alert = _with(alert, seq=alert.seq + 1, updated_at=at, finding_ids=ids)
    match finding.state:
        case "acknowledged":
            return _with(alert, acknowledged_by=finding.by)
        case "silenced":
            return _with(alert, silenced_until=finding.until)
        case _:
            return _with(alert, state="resolved", resolved_at=at, running=False)


def _with(alert: AlertStruct, **changes: Any) -> AlertStruct:
    return msgspec.structs.replace(alert, **changes)  # type: ignore[type-var]  # a struct, whatever the checker sees
