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
    AlertLimits,
    GroupKey,
    after_action,
    group_key,
    grown,
    incident_grown,
    incident_key,
    incident_opened,
    is_outdated,
    may_affect_other_runs,
    opened,
    quiet_period_over,
    reopened,
    resolves_when_quiet,
)
from stepstream.stream.core.contained_failures import QUIET_PERIOD_US
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
        limits: AlertLimits | None = None,
    ) -> None:
        self.partition = partition
        self.limits = limits or AlertLimits()
        self.counters = counters or Counters()
        self.offsets = OffsetTracker()
        self._alerts: dict[GroupKey, AlertStruct] = {}
        self._recent_runs: dict[GroupKey, deque[tuple[int, str]]] = {}
        """Time and trace id of the runs that may become an incident, within the incident window."""
        self._resolve_when_quiet: set[GroupKey] = set()
        """Firing alerts that are resolved by a time without findings: incidents, and alerts about
        the pipeline."""
        self._next_check_us = 0
        self._bound_at = 2 * KEEP_RESOLVED
        self._resolving_sent: dict[str, int] = {}
        self._outbox: list[Output] = []

    def restore(self, alerts: Iterable[AlertStruct], resume_at: int) -> None:
        """Take over the newest record of each group's alert."""
        self.offsets.position = resume_at
        for alert in alerts:
            known = self._alerts.get(group_key(alert))
            # The topic is keyed by alert, so a group may have several: the newest one goes on.
            if known is None or (alert.opened_at, alert.seq) > (known.opened_at, known.seq):
                self._alerts[group_key(alert)] = alert
        for alert in sorted(
            self._alerts.values(), key=lambda alert: (alert.opened_at, alert.source_offset)
        ):
            if may_affect_other_runs(alert):
                self._recent_runs.setdefault(incident_key(alert), deque(maxlen=_RECENT)).append(
                    (alert.opened_at, alert.trace_id)
                )
        self._resolve_when_quiet = {
            key
            for key, alert in self._alerts.items()
            if resolves_when_quiet(alert) and alert.state == "firing"
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
        known = alert or self._alerts.get(group_key(finding))
        is_new = known is not None and known.opened_offset == record.offset
        incident = (
            self._merge_incident(finding, record.offset)
            if is_new and may_affect_other_runs(finding)
            else None
        )
        if alert is not None:
            if (
                may_affect_other_runs(alert)
                and (whole := incident or self._open_incident(incident_key(alert))) is not None
            ):
                alert.incident_id = whole.alert_id
            self._publish(alert, record)
        # After the alert: if only one of the two is acknowledged before a crash, it is the alert.
        if incident is not None:
            self._publish(incident, record)
        self._bound()

    def _publish(self, alert: AlertStruct, record: Record) -> None:
        self.counters.alerts += 1
        key = group_key(alert)
        self._alerts[key] = alert
        if resolves_when_quiet(alert):
            (
                self._resolve_when_quiet.add
                if alert.state == "firing"
                else self._resolve_when_quiet.discard
            )(key)
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
        """Send a resolving finding for each alert whose quiet period is over.

        The alert is resolved when that finding is read back, unless another finding came before it.
        """
        if time_us < self._next_check_us:
            return
        # Once a second of log time is early enough for windows of minutes.
        self._next_check_us = time_us + CHECK_EVERY_US
        for key in self._resolve_when_quiet:
            alert = self._alerts[key]
            quiet_us = self.limits.incident_window_us if alert.runs else QUIET_PERIOD_US
            if (
                time_us >= alert.updated_at + quiet_us
                and self._resolving_sent.get(alert.alert_id) != alert.seq
            ):
                self._resolving_sent[alert.alert_id] = alert.seq
                self._outbox.append(
                    Output(
                        "findings",
                        alert.project.encode(),
                        _encode(quiet_period_over(alert, quiet_us)),
                    )
                )

    def delay_timers(self) -> None:
        """Nothing here waits for time to pass."""

    def flush(self) -> None:
        """Nothing waits for the end of a batch."""

    @property
    def offset_in_progress(self) -> int:
        """Offset of the record that is processed now, or the last one."""
        return self.offsets.position - 1

    def take_outputs(self) -> list[Output]:
        """Return the outputs to be sent now, in order, and forget them."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``take_outputs`` returned."""
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
        current = self._alerts.get(group_key(finding))
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
            merged = after_action(current, finding)
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
        if finding.time - current.resolved_at <= self.limits.flap_window_us:
            return reopened(current, finding)
        return opened(finding, current, offset=offset)

    def _open_incident(self, key: GroupKey) -> AlertStruct | None:
        return self._alerts[key] if key in self._resolve_when_quiet else None

    def _merge_incident(self, finding: FindingStruct, offset: int) -> AlertStruct | None:
        """The incident's next record with one more run; None while too few runs are affected."""
        key, limits = incident_key(finding), self.limits
        recent = self._recent_runs.setdefault(key, deque(maxlen=_RECENT))
        if (finding.time, finding.trace_id) not in recent:
            recent.append((finding.time, finding.trace_id))
        while recent and recent[0][0] < finding.time - limits.incident_window_us:
            recent.popleft()
        current = self._alerts.get(key)
        if (
            current is not None
            and current.source_partition == self.partition
            and offset <= current.source_offset
        ):
            return None
        affected = list(dict.fromkeys(trace_id for _, trace_id in recent))
        if current is not None and current.state == "firing":
            merged = incident_grown(current, finding)
        elif not limits.incident_runs or len(affected) < limits.incident_runs:
            return None
        elif current is not None and finding.time - current.resolved_at <= limits.flap_window_us:
            merged = incident_grown(current, finding, was_resolved=True)
        else:
            merged = incident_opened(finding, current, affected)
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
                self._resolve_when_quiet.discard(key)
            self._bound_at = max(2 * KEEP_RESOLVED, len(self._alerts) + KEEP_RESOLVED)
            kept = {alert.alert_id for alert in self._alerts.values()}
            self._resolving_sent = {
                alert_id: seq for alert_id, seq in self._resolving_sent.items() if alert_id in kept
            }
            groups = {incident_key(alert) for alert in self._alerts.values()}
            self._recent_runs = {
                key: runs for key, runs in self._recent_runs.items() if key in groups
            }
