"""The alert stage of one partition of findings: groups findings into alerts.

The only writer of alerts. Pure.

A group is a project, environment, agent, alert, run and subject. Its alert is published again with
each finding, with the next ``seq``. The state is the alerts topic itself: each record names the
last finding merged into it, so that a replay from below that offset, and a finding whose id was
merged before, change nothing. Resolving an alert by timeout is written as a finding first and
applied when that finding is read back, so that a replay decides the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import nsmallest
from typing import Final

import msgspec

from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.misfits import finding_misfit
from stepstream.stream.alerts.lifecycle import (
    AlertLifecycle,
    GroupKey,
    changed,
    ends_by_silence,
    group_of,
    grown,
    incident_grown,
    incident_of,
    incident_opened,
    is_outdated,
    is_shared,
    opened,
    quiet,
    reopened,
)
from stepstream.stream.core.contained_failures import SILENCE_US
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.deadletter import dead_letter
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold, Output
from stepstream.stream.core.records import Record

KEEP_RESOLVED: Final = 100_000
"""Alerts kept in memory after a clean-up, which starts at twice as many and forgets the oldest
resolved ones. Firing ones are forgotten only above three times as many: resolving one of them
has no effect."""

CHECK_EVERY_US: Final = 1_000_000
_RECENT: Final = 64

_decode = msgspec.json.Decoder(FindingStruct).decode
_encode = msgspec.json.Encoder().encode


class AlertPartition:
    """Alerts of the projects whose findings are on one partition."""

    def __init__(
        self,
        partition: int,
        counters: Counters | None = None,
        lifecycle: AlertLifecycle | None = None,
    ) -> None:
        self.partition = partition
        self.lifecycle = lifecycle or AlertLifecycle()
        self.counters = counters or Counters()
        self.offsets = OffsetTracker()
        self._alerts: dict[GroupKey, AlertStruct] = {}
        self._recent: dict[GroupKey, deque[tuple[int, str]]] = {}
        """Time and trace id of the runs that may become an incident, within the incident window."""
        self._incidents: set[GroupKey] = set()
        """Firing alerts that a time without findings resolves: incidents, and alerts about the
        pipeline."""
        self._next_check_us = 0
        self._bound_at = 2 * KEEP_RESOLVED
        self._closing_sent: dict[str, int] = {}
        self._outbox: list[Output] = []

    def restore(self, alerts: Iterable[AlertStruct], resume_at: int) -> None:
        """Take over the newest record of each group's alert."""
        self.offsets.position = resume_at
        for alert in alerts:
            known = self._alerts.get(group_of(alert))
            # The topic is keyed by alert, so a group may have several: the newest one goes on.
            if known is None or (alert.opened_at, alert.seq) > (known.opened_at, known.seq):
                self._alerts[group_of(alert)] = alert
        for alert in sorted(
            self._alerts.values(), key=lambda alert: (alert.opened_at, alert.source_offset)
        ):
            if is_shared(alert):
                self._recent.setdefault(incident_of(alert), deque(maxlen=_RECENT)).append(
                    (alert.opened_at, alert.trace_id)
                )
        self._incidents = {
            key
            for key, alert in self._alerts.items()
            if ends_by_silence(alert) and alert.state == "firing"
        }

    def process(self, record: Record) -> None:
        """Process one record of the findings topic."""
        if record.offset < self.offsets.position:
            return
        self.offsets.position = record.offset + 1
        try:
            finding = _decode(record.value or b"")
            why = finding_misfit(finding)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            why = str(error)[:200]
        if why:
            self._reject(record, "malformed_json", why)
            return
        alert = self._merge(finding, record.offset)
        known = alert or self._alerts.get(group_of(finding))
        is_hit = known is not None and known.opened_offset == record.offset
        incident = (
            self._merge_incident(finding, record.offset) if is_hit and is_shared(finding) else None
        )
        if alert is not None:
            if (
                is_shared(alert)
                and (whole := incident or self._open_incident(incident_of(alert))) is not None
            ):
                alert.incident_id = whole.alert_id
            self._publish(alert, record)
        # After the alert: if only one of the two is acknowledged before a crash, it is the alert.
        if incident is not None:
            self._publish(incident, record)
        self._bound()

    def _publish(self, alert: AlertStruct, record: Record) -> None:
        self.counters.alerts += 1
        key = group_of(alert)
        self._alerts[key] = alert
        if ends_by_silence(alert):
            (self._incidents.add if alert.state == "firing" else self._incidents.discard)(key)
        output = Output("alerts", alert.alert_id.encode(), _encode(alert), partition=self.partition)
        output.appended_us = record.timestamp * 1000
        self._send(record.offset, output)

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record that processing failed on, again and again."""
        self.offsets.position = record.offset + 1
        self._reject(record, "poison", detail)

    def _reject(self, record: Record, reason: str, detail: str) -> None:
        self.counters.rejected[reason] += 1
        self._send(record.offset, dead_letter(record, "findings", self.partition, reason, detail))

    def tick(self, time_us: int) -> None:
        """Send a closing finding for each alert without findings for its time.

        The alert is resolved when that finding is read back, unless another finding came before it.
        """
        if time_us < self._next_check_us:
            return
        # Once a second of log time is early enough for windows of minutes.
        self._next_check_us = time_us + CHECK_EVERY_US
        for key in self._incidents:
            incident = self._alerts[key]
            due_us = incident.updated_at + (
                self.lifecycle.incident_window_us if incident.runs else SILENCE_US
            )
            if time_us >= due_us and self._closing_sent.get(incident.alert_id) != incident.seq:
                self._closing_sent[incident.alert_id] = incident.seq
                self._outbox.append(
                    Output("findings", incident.project.encode(), _encode(quiet(incident, due_us)))
                )

    def delay_timers(self) -> None:
        """Nothing here waits for time to pass."""

    def flush(self) -> None:
        """Nothing waits for the end of a batch."""

    @property
    def offset_at_work(self) -> int:
        """Offset of the record that is processed now, or the last one."""
        return self.offsets.position - 1

    def drain(self) -> list[Output]:
        """What is to be sent now, in order."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``drain`` returned."""
        if output.owner is not None:
            self.offsets.release(output.owner)

    def _send(self, offset: int, output: Output) -> None:
        output.owner = OffsetHold()
        self.offsets.hold(output.owner, offset)
        self._outbox.append(output)

    def _merge(self, finding: FindingStruct, offset: int) -> AlertStruct | None:
        """The group's next alert record; None if the finding changes nothing, as a note does."""
        # A note opens no alert, and changes none that is firing about the same subject.
        if finding.severity == "note":
            return None
        current = self._alerts.get(group_of(finding))
        if current is not None and (
            finding.finding_id in current.finding_ids
            or (current.source_partition == self.partition and offset <= current.source_offset)
        ):
            return None
        if is_outdated(finding, current):
            return None
        is_open = current is not None and current.state == "firing"
        if finding.state == "firing":
            merged = self._fired(finding, current, offset)
        elif current is not None and is_open:
            merged = changed(current, finding)
        else:
            return None
        merged.source_partition, merged.source_offset = self.partition, offset
        return merged

    def _fired(
        self, finding: FindingStruct, current: AlertStruct | None, offset: int
    ) -> AlertStruct:
        if current is None:
            return opened(finding, offset=offset)
        if current.state == "firing":
            return grown(current, finding)
        if finding.time - current.resolved_at <= self.lifecycle.flap_window_us:
            return reopened(current, finding)
        return opened(finding, current, offset=offset)

    def _open_incident(self, key: GroupKey) -> AlertStruct | None:
        return self._alerts[key] if key in self._incidents else None

    def _merge_incident(self, finding: FindingStruct, offset: int) -> AlertStruct | None:
        """The incident's next record with one more run; None while too few runs are affected."""
        key, lifecycle = incident_of(finding), self.lifecycle
        recent = self._recent.setdefault(key, deque(maxlen=_RECENT))
        if (finding.time, finding.trace_id) not in recent:
            recent.append((finding.time, finding.trace_id))
        while recent and recent[0][0] < finding.time - lifecycle.incident_window_us:
            recent.popleft()
        current = self._alerts.get(key)
        if (
            current is not None
            and current.source_partition == self.partition
            and offset <= current.source_offset
        ):
            return None
        hit = list(dict.fromkeys(trace_id for _, trace_id in recent))
        if current is not None and current.state == "firing":
            merged = incident_grown(current, finding)
        elif not lifecycle.incident_runs or len(hit) < lifecycle.incident_runs:
            return None
        elif current is not None and finding.time - current.resolved_at <= lifecycle.flap_window_us:
            merged = incident_grown(current, finding, back=True)
        else:
            merged = incident_opened(finding, current, hit)
        merged.source_partition, merged.source_offset = self.partition, offset
        return merged

    def _bound(self) -> None:
        """Forget the oldest alerts when there are too many.

        Resolved ones first, then firing ones.
        """
        if len(self._alerts) > self._bound_at:
            surplus = len(self._alerts) - KEEP_RESOLVED
            oldest = nsmallest(
                surplus,
                ((a.state == "firing", a.updated_at, key) for key, a in self._alerts.items()),
            )
            for is_firing, _, key in oldest:
                # The resolved ones sort first: from here on only firing ones are left.
                if is_firing and len(self._alerts) <= 3 * KEEP_RESOLVED:
                    break
                del self._alerts[key]
                self._incidents.discard(key)
            self._bound_at = max(2 * KEEP_RESOLVED, len(self._alerts) + KEEP_RESOLVED)
            kept = {alert.alert_id for alert in self._alerts.values()}
            self._closing_sent = {
                alert_id: seq for alert_id, seq in self._closing_sent.items() if alert_id in kept
            }
            groups = {incident_of(alert) for alert in self._alerts.values()}
            self._recent = {key: runs for key, runs in self._recent.items() if key in groups}
