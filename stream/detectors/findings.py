"""From what detectors saw to findings on the topic.

Named by the log, raised once, resolved when they end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from stepstream.schemas.alert import CommandStruct, FindingStruct
from stepstream.schemas.alert_text import sentence
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id
from stepstream.stream.core.counters import Counters
from stepstream.stream.detectors.base import Observation
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import MAX_FINDINGS, Fired, Run

MAX_QUOTED_CHARS: Final = 500
"""The longest quotation that a finding carries."""


def findings_from(
    run: Run, applied: Applied, observations: Iterable[Observation], now_us: int, counters: Counters
) -> Iterator[FindingStruct]:
    """The findings that are new.

    What was raised for this run before is not raised again, and not more than a bound.
    """
    rule = applied.rule
    for seen in observations:
        key = f"{applied.key}|{seen.subject}|{seen.level}"
        before = run.fired.get(key)
        if seen.resolved or seen.withdrawn:
            if before is None or before.resolved:
                continue
            run.fired[key] = before._replace(resolved=True)
            if before.is_note or _is_kept_open(run, before):
                # It closes no alert: it was a note itself, or another finding keeps it open.
                seen = replace(seen, severity="note")  # noqa: PLW2901
        elif before is not None:
            continue
        elif run.raised[rule.alert_name] >= MAX_FINDINGS:
            counters.findings_over_limit += 1
            continue
        else:
            run.raised[rule.alert_name] += 1
            is_note = seen.severity == "note"
            run.fired[key] = Fired(
                rule.alert_name,
                seen.subject,
                seen.level,
                rule.rule,
                applied.policy,
                is_note=is_note,
            )
        yield _finding(run, applied, seen, key, now_us)


def closing_findings(run: Run, now_us: int) -> Iterator[FindingStruct]:
    """One resolving finding for each (alert, subject) still open: findings end with their run.

    Its id names the levels that it ends. A replay may close the run after one level more was
    passed: that is another end.
    """
    ended: dict[tuple[str, str], list[Fired]] = {}
    for key, fired in run.fired.items():
        if not fired.resolved:
            run.fired[key] = fired._replace(resolved=True)
            if fired.is_note:
                continue  # it opened nothing that is to be ended
            ended.setdefault((fired.alert, fired.subject), []).append(fired)
    for (alert, subject), group in ended.items():
        fired = group[0]
        levels = "+".join(sorted(item.level for item in group))
        yield new_finding(
            fired,
            derived_id("finding", run.trace_id, f"{alert}|{subject}|{levels}", "closed"),
            now_us,
            **_labels(run),
            state="resolved",
            severity="info",
            message="the run is over",
        )


def _is_kept_open(run: Run, ended: Fired) -> bool:
    """Whether another finding of the run keeps the alert of a resolved finding open."""
    return any(
        not other.resolved
        and not other.is_note
        and other.alert == ended.alert
        and other.subject == ended.subject
        for other in run.fired.values()
    )


def command_for(finding: FindingStruct) -> CommandStruct | None:
    """The order that an enforcing policy gives with a finding; None where there is none."""
    if finding.action not in ("warn", "pause", "stop") or finding.state != "firing":
        return None
    return CommandStruct(
        command_id=derived_id("command", finding.finding_id, finding.action),
        action=finding.action,
        time=finding.time,
        project=finding.project,
        agent=finding.agent,
        trace_id=finding.trace_id,
        reason=f"{finding.alert}: {sentence(finding)}",
        finding_id=finding.finding_id,
        by=f"policy:{finding.policy}",
    )


def _finding(run: Run, applied: Applied, seen: Observation, key: str, now_us: int) -> FindingStruct:
    rule = applied.rule
    is_over = seen.resolved or seen.withdrawn
    return new_finding(
        run.identity,
        derived_id("finding", run.trace_id, key, "resolved" if is_over else "firing"),
        now_us,
        state="resolved" if is_over else "firing",
        trace_id=run.trace_id,
        alert=rule.alert_name,
        rule=rule.rule,
        policy=applied.policy,
        policy_revision=applied.revision,
        severity=seen.severity,
        subject=seen.subject,
        step_ids=list(seen.step_ids),
        value=seen.value,
        threshold=seen.threshold,
        unit=seen.unit,
        baseline=seen.baseline,
        baseline_runs=seen.baseline_runs,
        message=seen.message,
        quoted=seen.quoted[:MAX_QUOTED_CHARS],
        detail=seen.detail,
        running=not run.closed and not run.root_ended,
        run_steps=len(run.steps),
        withdrawn=seen.withdrawn,
        action=rule.action
        if applied.enforce and rule.action != "none" and seen.level != "warn"
        else "",
    )


def _labels(run: Run) -> dict[str, str]:
    who = run.identity
    return {
        "project": who.project,
        "environment": who.environment,
        "agent": who.agent,
        "agent_version": who.agent_version,
        "task": who.task,
        "user_id": who.user_id,
        "trace_id": run.trace_id,
    }
