"""The records that are published about a run: trajectory, usage, summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from stepstream.schemas.config_drift import NoReleases, Releases, Used, config_drift
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.trajectory import (
    MAX_REPEATED,
    RunSummaryStruct,
    Success,
    TrajectoryStruct,
    UsageStruct,
)
from stepstream.schemas.usage import TOTALLED
from stepstream.stream.run.clock_skew import run_span, skewed_steps
from stepstream.stream.run.run import Run, Totals, UsageKey, sum_of
from stepstream.stream.run.status import run_status
from stepstream.stream.run.step_index import StepIndex
from stepstream.stream.run.steps import StepInfo

NO_RELEASES: Final = NoReleases()
MAX_OTHERS: Final = 20_000
"""The most usage records that only set another agent's amounts to zero: no more than a run has
steps.
"""


def trajectory(
    run: Run, releases: Releases = NO_RELEASES, success: Success = "", success_reason: str = ""
) -> TrajectoryStruct:
    """The run's trajectory now. ``success`` and its reason are those of a closed run."""
    identity, totals, root = run.identity, run.totals, run.shown_root
    outline = run.step_index
    if outline is None:
        outline = run.step_index = StepIndex()
    seen = outline.tally(run.steps)
    start_us, end_us = run_span(run, seen.start_us, seen.end_us)
    failed = failed_step(outline.in_order(run.steps)) if run.errors else None
    used = Used(identity.agent, identity.agent_version, run.release, seen.tools, seen.models)
    return TrajectoryStruct(
        trace_id=run.trace_id,
        revision=run.revision,
        status=run_status(run),
        success=success,
        success_reason=success_reason,
        closed=run.is_shown_closed,
        project=identity.project,
        environment=identity.environment,
        agent=identity.agent,
        agent_version=identity.agent_version,
        task=identity.task,
        session_id=identity.session_id,
        user_id=identity.user_id,
        root_step_id=root.step_id if root is not None else "",
        name=identity.name,
        start_time=start_us,
        end_time=end_us,
        duration_us=end_us - start_us,
        first_append_time=run.first_append_us,
        last_append_time=run.last_append_us,
        steps=len(run.steps),
        ended_steps=totals.steps,
        open_steps=len(run.open),
        error_steps=totals.errors,
        cancelled_steps=seen.cancelled,
        llm_calls=totals.llm_calls,
        tool_calls=totals.tool_calls,
        retrievals=seen.retrievals,
        unpriced_steps=totals.unpriced,
        orphan_steps=seen.orphans,
        extra_roots=max(0, seen.roots - 1),
        duplicates=run.duplicates,
        late_steps=run.late_steps,
        steps_over_limit=run.over_limit,
        skewed_steps=skewed_steps(run) if run.closed else 0,
        **_token_counts(totals),
        cost_usd=usd_from_nanos(totals.cost_nanos),
        tools=seen.tools,
        models=seen.models,
        failed_step_id=failed.step_id if failed else "",
        failed_kind=failed.kind if failed else "",
        failed_tool=failed.tool if failed else "",
        error_type=failed.error_type if failed else "",
        error_message=failed.error_message if failed else "",
        findings=len(run.fired),
        path=cast(Any, msgspec.Raw(b"[" + seen.path[:-1] + b"]")),
        path_truncated=seen.truncated,
        release=run.release,
        config_drift=[kind for kind, _ in config_drift(used, releases)],
        task_id=run.task.task_id,
        attempt=run.task.attempt,
        repeated_step_ids=sorted(run.repeated)[:MAX_REPEATED] if run.repeated else [],
        provisional=run.is_provisional,
    )


def usage_records(run: Run, *, everything: bool = False) -> Iterator[UsageStruct]:
    """The running totals of the minutes that changed since they were last published, or of all.

    A step without an agent counts for the run's agent, so its minute may be added to another
    part's. Before the root was known the run may have counted for another agent: amounts that were
    published for that one are set to zero.
    """
    identity = run.identity
    owner = (identity.agent, identity.agent_version)
    parts: dict[UsageKey, list[Totals]] = {}
    wanted: set[UsageKey] = set()
    repeated: set[UsageKey] = set()
    others = _possible_owners(run)
    # One run does not have steps of so many agents in so many minutes.
    if len(others) * len(run.by_minute) > MAX_OTHERS:
        others = set()
    for key, part in run.by_minute.items():
        agent, agent_version, minute = key
        shown = (agent, agent_version, minute) if agent else (*owner, minute)
        parts.setdefault(shown, []).append(part)
        if key in run.changed_minutes:
            wanted.add(shown)
            if not agent:
                wanted.update((*other, minute) for other in others)
        elif everything:
            repeated.add(shown)
            if not agent:
                repeated.update((*other, minute) for other in others)
    for shown in sorted(wanted | repeated):
        yield _usage(run, shown, parts.get(shown, []), repeated=shown not in wanted)


def _token_counts(totals: Totals) -> dict[str, int]:
    """Token counts by field, limited to what a record may contain."""
    return {
        name: min(count, MAX_COUNT) for name, count in zip(TOTALLED, totals.tokens, strict=True)
    }


def _used_amounts(totals: Totals) -> dict[str, int]:
    """The fields of ``UsedAmounts``."""
    counts = _token_counts(totals)
    counts["steps"] = totals.steps
    counts["error_steps"] = totals.errors
    counts["llm_calls"] = totals.llm_calls
    counts["tool_calls"] = totals.tool_calls
    counts["unpriced_steps"] = totals.unpriced
    return counts


def _possible_owners(run: Run) -> set[tuple[str, str]]:
    """The agents of its steps: the run may have counted for them before its root was known."""
    return {(info.agent, info.agent_version) for info in run.steps.values()}


def run_summary(run: Run, success: Success = "") -> RunSummaryStruct:
    """A closed run in one record."""
    identity, totals = run.identity, run.totals
    start, end = run_span(run)
    root = run.root
    return RunSummaryStruct(
        kind="run",
        project=identity.project,
        trace_id=run.trace_id,
        revision=run.revision,
        status=run_status(run),
        time=root.end_us if root is not None and root.ended else run.closed_at_us,
        reopened=run.late_steps > 0,
        provisional=run.is_provisional,
        success=success,
        environment=identity.environment,
        agent=identity.agent,
        agent_version=identity.agent_version,
        task=identity.task,
        user_id=identity.user_id,
        start_time=start,
        end_time=end,
        duration_us=end - start,
        first_append_time=run.first_append_us,
        **_used_amounts(totals),
        cost_usd=usd_from_nanos(totals.cost_nanos),
    )


def _usage(run: Run, key: UsageKey, parts: list[Totals], *, repeated: bool) -> UsageStruct:
    identity, totals = run.identity, sum_of(parts)
    agent, agent_version, minute = key
    return UsageStruct(
        project=identity.project,
        trace_id=run.trace_id,
        revision=run.revision,
        minute=minute,
        environment=identity.environment,
        agent=agent,
        agent_version=agent_version,
        task=identity.task,
        user_id=identity.user_id,
        **_used_amounts(totals),
        cost_usd=usd_from_nanos(totals.cost_nanos),
        repeated=repeated,
    )


def failed_step(by_start: list[StepInfo]) -> StepInfo | None:
    """The earliest failed step without a failed child: where the failure began."""
    failed = [info for info in by_start if info.ended and info.status == "error"]
    parents = {info.parent for info in failed}
    causes = [info for info in failed if info.step_id not in parents]
    return min(causes or failed, key=lambda info: (info.end_us, info.step_id))
