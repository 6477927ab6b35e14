"""The lifecycle of an alert: opened, worse, updated, acknowledged, silenced, reopened, resolved.

Functions without side effects, from records to the alert's next record. Findings with the same
``group_key`` are one alert, whose record grows. An alert that fires again within the flap window
keeps its id. Findings of several runs about the same subject, such as a broken tool, are also one
incident with a count and samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from stepstream.schemas.alert import SEVERITIES, AlertStruct, FindingStruct
from stepstream.schemas.findings import new_finding
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.ids import STEP_ID, derived_id
from stepstream.schemas.rules import RULES
from stepstream.schemas.settings import Settings
from stepstream.stream.core.contained_failures import RESOLVED_WHEN_QUIET

# A finding is read twice after a restart of the worker, or when its producer repeats it: among the
# newest of an alert, which are in its record.
MAX_FINDING_IDS: Final = 64
MAX_STEP_IDS: Final = 20
SAMPLES: Final = 10
"""Trace ids in an incident: this many of its first runs, and as many of its newest."""

_Item = TypeVar("_Item")
GroupKey = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """Limits of reopening and incidents. Times are microseconds of log time."""

    flap_window_us: int = 600_000_000
    incident_runs: int = 3
    incident_window_us: int = 600_000_000

    @classmethod
    def from_settings(cls, settings: Settings) -> AlertLimits:
        return cls(settings.flap_window, settings.incident_runs, settings.incident_window)


def group_key(item: FindingStruct | AlertStruct) -> GroupKey:
    """The group: the fields that the findings of an alert have in common.

    An incident has no trace id.
    """
    return (item.project, item.environment, item.agent, item.alert, item.trace_id, item.subject)


def incident_key(item: FindingStruct | AlertStruct) -> GroupKey:
    """The group of the incident that a run's alert may be part of."""
    return (item.project, item.environment, item.agent, item.alert, "", item.subject)


def may_affect_other_runs(item: FindingStruct | AlertStruct) -> bool:
    """Whether other runs may have the same problem: its subject is a tool or a model, not a step
    of this run.
    """
    if not item.trace_id or not item.subject or STEP_ID.fullmatch(item.subject) is not None:
        return False
    kind = RULES.find(item.rule)
    return kind is None or not kind.model.about_one_run


def opened(
    finding: FindingStruct, before: AlertStruct | None = None, *, offset: int = -1
) -> AlertStruct:
    """The first record of a new alert.

    ``before`` is the previous, resolved alert of the group. Its finding ids are taken over, so that
    a finding read twice is recognised, and its silence if that has not ended. ``offset`` is that of
    the finding's record; -1 for an incident.
    """
    alert = AlertStruct(
        alert_id=derived_id("alert", *group_key(finding), finding.time),
        seq=1,
        change="opened",
        state="firing",
        severity=finding.severity,
        alert=finding.alert,
        rule=finding.rule,
        policy=finding.policy,
        policy_revision=finding.policy_revision,
        project=finding.project,
        environment=finding.environment,
        agent=finding.agent,
        agent_version=finding.agent_version,
        task=finding.task,
        user_id=finding.user_id,
        trace_id=finding.trace_id,
        subject=finding.subject,
        step_ids=finding.step_ids[:MAX_STEP_IDS],
        value=finding.value,
        threshold=finding.threshold,
        unit=finding.unit,
        baseline=finding.baseline,
        baseline_runs=finding.baseline_runs,
        message=finding.message,
        quoted=finding.quoted,
        detail=finding.detail,
        running=finding.running,
        run_steps=finding.run_steps,
        opened_at=finding.time,
        updated_at=finding.time,
        action=finding.action,
        opened_by=f"{finding.finding_id}@{offset}",
        opened_offset=offset,
        finding_ids=_more_ids(before, finding),
    )
    if before is not None and before.silenced_until > finding.time:
        # A silence applies to the group, not to the one alert that was open when it was requested.
        alert.silenced_until, alert.by = before.silenced_until, before.by
    return alert


def grown(alert: AlertStruct, finding: FindingStruct) -> AlertStruct:
    """The alert with one more firing finding.

    It has the highest severity, the newest message, and the first ``MAX_STEP_IDS`` steps.
    """
    worse = SEVERITIES.index(finding.severity) > SEVERITIES.index(alert.severity)
    return _with(
        alert,
        seq=alert.seq + 1,
        change="worse" if worse else "updated",
        severity=finding.severity if worse else alert.severity,
        step_ids=list(dict.fromkeys([*alert.step_ids, *finding.step_ids]))[:MAX_STEP_IDS],
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
        quoted=finding.quoted,
        detail=finding.detail or alert.detail,
        running=finding.running,
        run_steps=finding.run_steps,
        findings=alert.findings + 1,
        updated_at=max(alert.updated_at, finding.time),
        action=finding.action or alert.action,
        policy_revision=finding.policy_revision or alert.policy_revision,
        finding_ids=_more_ids(alert, finding),
    )


def reopened(alert: AlertStruct, finding: FindingStruct) -> AlertStruct:
    """A resolved alert that fires again: the same id, ``reopened`` counted up."""
    again = grown(alert, finding)
    # A person resolved it: without an acknowledgement, subscriptions notify again. If a detector
    # resolved it, an earlier acknowledgement stays.
    kept = "" if alert.by else alert.acknowledged_by
    return _with(
        again,
        change="reopened",
        state="firing",
        resolved_at=0,
        withdrawn=False,
        reopened=alert.reopened + 1,
        by="",
        acknowledged_by=kept,
    )


def after_action(alert: AlertStruct, finding: FindingStruct) -> AlertStruct:
    """The alert after a finding that acknowledges or silences it; any other state resolves it."""
    at = max(alert.updated_at, finding.time)
    ids = _more_ids(alert, finding)
    alert = _with(
        alert,
        seq=alert.seq + 1,
        change=finding.state,
        updated_at=at,
        by=finding.by,
        finding_ids=ids,
    )
    match finding.state:
        case "acknowledged":
            return _with(alert, acknowledged_by=finding.by)
        case "silenced":
            return _with(alert, silenced_until=finding.until)
        case _:
            resolved = _with(
                alert,
                state="resolved",
                resolved_at=at,
                running=False,
            )
            return (
                _with(resolved, withdrawn=True, detail=finding.message)
                if finding.withdrawn
                else resolved
            )


def incident_opened(
    finding: FindingStruct, before: AlertStruct | None, trace_ids: list[str]
) -> AlertStruct:
    """The first record of an incident, once enough runs are affected."""
    alert = opened(_of_many_runs(finding, len(trace_ids)), before)
    alert.runs, alert.trace_ids = len(trace_ids), trace_ids[: 2 * SAMPLES]
    # An incident is not opened by one finding, so a restart must not treat one of its findings as
    # the record that opened it.
    alert.opened_by, alert.opened_offset = "", -1
    return alert


def incident_grown(
    incident: AlertStruct, finding: FindingStruct, *, was_resolved: bool = False
) -> AlertStruct:
    """The incident with one more run; with ``was_resolved`` the incident is reopened."""
    runs = incident.runs + 1
    whole = _of_many_runs(finding, runs)
    first, newest = incident.trace_ids[:SAMPLES], incident.trace_ids[SAMPLES:]
    samples = [*first, *[*newest, finding.trace_id][-SAMPLES:]]
    return _with(
        (reopened if was_resolved else grown)(incident, whole), runs=runs, trace_ids=samples
    )


def resolves_when_quiet(alert: AlertStruct) -> bool:
    """Whether an alert is resolved by a time without findings: an incident, or a failure of the
    pipeline itself.
    """
    return bool(alert.runs) or (
        alert.project == "stepstream" and alert.alert in RESOLVED_WHEN_QUIET and not alert.trace_id
    )


def quiet_period_over(alert: AlertStruct, quiet_us: int) -> FindingStruct:
    """The finding that resolves an alert after ``quiet_us`` without findings.

    ``is_outdated`` ignores it if the alert has had another record since.
    """
    quiet = format_duration(quiet_us)
    return new_finding(
        alert,
        derived_id("quiet", alert.alert_id, alert.seq),
        alert.updated_at + quiet_us,
        state="resolved",
        severity="info",
        # Workers of versions without ``alert_seq`` compare this with the alert's seq.
        value=float(alert.seq),
        message=f"no run was affected for {quiet}"
        if alert.runs
        else f"it was not seen again for {quiet}",
        alert_id=alert.alert_id,
        alert_seq=alert.seq,
    )


def is_outdated(finding: FindingStruct, current: AlertStruct | None) -> bool:
    """Whether the finding names another alert than ``current``, or another record (seq) of it.

    False for a finding that names no alert; with ``alert_seq`` 0 it is about any record.
    """
    if not finding.alert_id:
        return False
    if current is None or current.alert_id != finding.alert_id:
        return True
    return finding.alert_seq not in (0, current.seq)


def _of_many_runs(finding: FindingStruct, runs: int) -> FindingStruct:
    """A run's finding rewritten for an incident of ``runs`` runs: without run, user and steps."""
    return _with(
        finding,
        trace_id="",
        user_id="",
        step_ids=[],
        running=False,
        run_steps=0,
        message=f"{runs} runs: {finding.message}",
        action="",
    )


def _more_ids(alert: AlertStruct | None, finding: FindingStruct) -> list[str]:
    """The alert's finding ids with this one added, at most the newest ``MAX_FINDING_IDS``."""
    return [*(alert.finding_ids if alert is not None else ()), finding.finding_id][
        -MAX_FINDING_IDS:
    ]


def _with(item: _Item, **changes: Any) -> _Item:
    # For mypy the item is a pydantic model; when the program runs it is the struct derived from it.
    return msgspec.structs.replace(item, **changes)  # type: ignore[type-var]
