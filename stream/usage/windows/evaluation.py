"""Evaluates the rules over windows: budgets after each usage record, others once a minute of log
time.

Everything follows from the log: the same records give the same findings with the same ids, however
often they are read. Which findings are firing is part of the stage's checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.calendar import window_of
from stepstream.schemas.formatting import format_dollars
from stepstream.schemas.money import NANOS_PER_USD
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.core.contained_failures import ContainedFailures
from stepstream.stream.core.counters import Counters
from stepstream.stream.usage.detectors import Group, WindowDetectorBase, make_window_detector
from stepstream.stream.usage.detectors.spend import Budget
from stepstream.stream.usage.windows.budgets import BudgetKey, Budgets, Total, budget_name
from stepstream.stream.usage.windows.findings import (
    Firing,
    GroupKey,
    WindowObservation,
    ended,
    finding,
    firing_key,
)
from stepstream.stream.usage.windows.records import Owner
from stepstream.stream.usage.windows.rules import AppliedWindow, WindowRules
from stepstream.stream.usage.windows.series import Series
from stepstream.stream.usage.windows.version_book import VersionBook, VersionState

CLEAR_FOR_US: Final = 5 * MINUTE_US
"""A finding is resolved when it was not observed for this time, so that a short gap makes no second
alert."""

MAX_FIRING: Final = 5_000
"""Maximum number of simultaneously firing findings of a partition; further ones are only counted. A
checkpoint with as many takes 2 MB.
"""


class EvaluationState(msgspec.Struct):
    """The part of a checkpoint that the evaluation needs."""

    firing: list[Firing] = []
    versions: VersionState = msgspec.field(default_factory=VersionState)


class WindowEvaluation:
    """The evaluation of one partition."""

    def __init__(
        self, rules: WindowRules, counters: Counters, failures: ContainedFailures | None = None
    ) -> None:
        self.counters = counters
        self.budgets = Budgets()
        self.versions = VersionBook()
        self.firing: dict[str, Firing] = {}
        self._levels: Counter[tuple[GroupKey, str]] = Counter()
        """Firing findings by group and subject: one for each level, such as warn and limit."""
        self._rules = rules
        self._groups: dict[
            GroupKey, tuple[AppliedWindow, WindowDetectorBase[Any], list[Series]]
        ] = {}
        self._groups_are_stale = True
        self._off: set[GroupKey] = set()
        self._failures = failures or ContainedFailures("usage", 0, counters)

    # -- restart -----------------------------------------------------------------------------------

    def state(self) -> EvaluationState:
        """What a checkpoint must keep."""
        return EvaluationState(list(self.firing.values()), self.versions.state())

    def restore(self, state: EvaluationState) -> None:
        """Take over what a checkpoint kept."""
        self.firing = {firing.key: firing for firing in state.firing}
        self._levels = Counter(map(_subject_of, self.firing.values()))
        self.versions.restore(state.versions)

    # -- rules -------------------------------------------------------------------------------------

    @property
    def rules(self) -> WindowRules:
        """The rules in force."""
        return self._rules

    def change_rules(
        self, rules: WindowRules, series: Mapping[Owner, Series], sealed_until_us: int
    ) -> None:
        """Evaluate other rules from now on.

        A new budget starts with what was already spent in its current calendar windows, from the
        totals of hours. A budget per user starts at 0: totals of users are not kept.
        """
        # The first five fields of BudgetKey, policy to timezone, are those of the budget itself.
        known = {key[:5] for key in self.budgets.totals}
        self._rules = rules
        self._groups_are_stale = True
        # A detector is made for its rule: other limits need another one, which learns anew.
        self._groups.clear()
        # A changed policy may have removed what made a detector raise.
        self._off.clear()
        for owner, past in series.items():
            for budget in rules.of(owner).budgets:
                if budget.key in known or budget.rule.per == "user_id":
                    continue
                for hour, row in past.hours.items():
                    self.add_sealed((budget,), owner, "", hour, row.cost_nanos, sealed_until_us)

    # -- budgets -----------------------------------------------------------------------------------

    def add_used(
        self,
        budgets: Iterable[Budget],
        owner: Owner,
        user_id: str,
        minute_us: int,
        nanos: int,
        time_us: int,
        *,
        is_replayed: bool,
    ) -> Iterator[FindingStruct]:
        """Add an amount to the budgets and yield the findings that follow.

        With ``is_replayed`` nothing is yielded, because it was before the restart. A generator: it
        must be consumed. ``minute_us`` is the minute's start.
        """
        for budget in budgets:
            if budget.rule.per == "user_id" and not user_id:
                continue
            key, total = self.budgets.use(budget, owner, user_id, minute_us, nanos)
            if not is_replayed and nanos > 0:
                yield from self._evaluate_budget(key, total, time_us)

    def add_sealed(
        self,
        budgets: Iterable[Budget],
        owner: Owner,
        user_id: str,
        minute_us: int,
        nanos: int,
        sealed_until_us: int,
    ) -> None:
        """Add an amount of a sealed window without evaluating it, if the budget's window ends after
        ``sealed_until_us``: after a restart, and for new budgets.
        """
        for budget in budgets:
            if (
                nanos
                and window_of(minute_us, budget.rule.window, budget.rule.timezone)[1]
                > sealed_until_us
            ):
                self.budgets.use(budget, owner, user_id, minute_us, nanos)

    def _evaluate_budget(
        self, key: BudgetKey, total: Total, time_us: int
    ) -> Iterator[FindingStruct]:
        budget = total.budget
        if total.nanos > budget.limit_nanos:
            level, limit = "limit", budget.limit_nanos
        elif budget.warn_nanos and total.nanos > budget.warn_nanos:
            level, limit = "warn", budget.warn_nanos
        else:
            return
        name = budget_name(key)
        agent = key.group if key.per == "agent" else ""
        # A budget per project may be spent in several environments: its group has none.
        group = GroupKey(key.alert, key.policy, key.project, "", agent)
        if firing_key(group, name, level) in self.firing:
            return
        spent, full = total.nanos / NANOS_PER_USD, budget.limit_nanos / NANOS_PER_USD
        share = 100 * total.nanos / budget.limit_nanos
        observed = WindowObservation(
            message=f"{name}: {format_dollars(spent)} spent, {share:.0f} % of the budget of "
            f"{format_dollars(full)}",
            severity=(budget.rule.severity or "error") if level == "limit" else "warning",
            level=level,
            subject=name,
            value=spent,
            threshold=limit / NANOS_PER_USD,
            unit="usd",
        )
        yield from self._fire(group, budget.rule.rule, observed, time_us, until=total.end)

    # -- once a minute -----------------------------------------------------------------------------

    def add_closed_run(self, summary: RunSummaryStruct) -> None:
        """Add a closed run to the statistics of its agent's versions."""
        self.versions.closed(summary)

    def evaluate(
        self, series: Mapping[Owner, Series], now_us: int, sealed_until_us: int
    ) -> Iterator[FindingStruct]:
        """Yields the findings that open or end as of ``now_us``, the start of a minute of log time.

        A detector that raises is switched off for its group and yields a finding about itself.
        """
        self._regroup(series)
        firing_by_group: dict[GroupKey, list[Firing]] = {}
        for firing in self.firing.values():
            # Findings with a time are about budgets: they end with their calendar window, however
            # long they were not observed.
            if not firing.until:
                firing_by_group.setdefault(firing.group, []).append(firing)
        for key, (applied, detector, owners) in self._groups.items():
            if key in self._off:
                continue
            try:
                seen = list(
                    detector.evaluate(
                        Group(key.project, key.environment, key.agent, owners, sealed_until_us),
                        now_us,
                    )
                )
            # Detectors may come from other packages: one that raises must not stop the partition.
            except Exception as error:
                yield from self._switch_off(key, applied, error, now_us)
                continue
            subjects: set[tuple[str, str]] = set()
            for observed in seen:
                subjects.add((observed.subject, observed.level))
                yield from self._fire(key, applied.rule.rule, observed, now_us)
            yield from self._clear(firing_by_group.get(key, ()), subjects, now_us)
        yield from self._expire(now_us)

    def _switch_off(
        self, key: GroupKey, applied: AppliedWindow, error: Exception, now_us: int
    ) -> Iterator[FindingStruct]:
        """Switch a detector off for a group, until policies change or the worker restarts. Yields
        the finding about it, if one is due.
        """
        self._off.add(key)
        rule = applied.rule.rule
        failure = self._failures.report_detector(
            rule, key.alert, error, now_us, f"agent {key.agent!r} of project {key.project!r}"
        )
        if failure is not None:
            yield failure

    def owners_changed(self) -> None:
        """Owners were added or removed: assign them to rules again before the next evaluation."""
        self._groups_are_stale = True

    def _regroup(self, series: Mapping[Owner, Series]) -> None:
        if not self._groups_are_stale:
            return
        self._groups_are_stale = False
        for _, _, owners in self._groups.values():
            owners.clear()
        for owner, past in series.items():
            for applied in self._rules.of(owner).evaluated:
                key = GroupKey(applied.alert, applied.policy, *owner[:3])
                found = self._groups.get(key)
                if found is None:
                    found = self._groups[key] = (
                        applied,
                        make_window_detector(applied.rule, self.versions),
                        [],
                    )
                found[2].append(past)
        for key in [key for key, (_, _, owners) in self._groups.items() if not owners]:
            del self._groups[key]

    def _fire(
        self, key: GroupKey, rule: str, observed: WindowObservation, now_us: int, *, until: int = 0
    ) -> Iterator[FindingStruct]:
        name = firing_key(key, observed.subject, observed.level)
        known = self.firing.get(name)
        if known is not None:
            known.clear_since = 0
            return
        if len(self.firing) >= MAX_FIRING:
            self.counters.findings_over_limit += 1
            return
        firing = self.firing[name] = Firing(
            alert=key.alert,
            rule=rule,
            policy=key.policy,
            project=key.project,
            environment=key.environment,
            agent=key.agent,
            subject=observed.subject,
            level=observed.level,
            severity=observed.severity,
            opened_at=now_us,
            until=until,
        )
        self._levels[_subject_of(firing)] += 1
        revision = self._rules.revisions.get(key.policy, 0)
        yield finding(firing, observed, now_us, revision=revision)

    def _drop(self, firing: Firing) -> None:
        del self.firing[firing.key]
        subject = _subject_of(firing)
        self._levels[subject] -= 1
        if not self._levels[subject]:
            del self._levels[subject]

    def _clear(
        self, before: Iterable[Firing], seen: set[tuple[str, str]], now_us: int
    ) -> Iterator[FindingStruct]:
        """End what a group had before and is no longer seen to have."""
        for firing in before:
            if (firing.subject, firing.level) in seen:
                continue
            firing.clear_since = firing.clear_since or now_us
            if now_us - firing.clear_since >= CLEAR_FOR_US:
                yield from self._end(
                    firing, f"not seen for {CLEAR_FOR_US // MINUTE_US} minutes", now_us
                )

    def _expire(self, now_us: int) -> Iterator[FindingStruct]:
        """Resolve findings of windows that are over, and of rules that no longer apply."""
        for firing in list(self.firing.values()):
            if firing.until and now_us >= firing.until:
                yield from self._end(firing, f"{firing.subject}: this window is over", now_us)
            elif not firing.until and firing.group not in self._groups:
                yield from self._end(firing, "no rule applies to this any more", now_us)

    def _end(self, firing: Firing, message: str, now_us: int) -> Iterator[FindingStruct]:
        """Resolve a finding.

        Its alert stays open while another level of the same subject is firing.
        """
        self._drop(firing)
        if not self._levels[_subject_of(firing)]:
            yield ended(firing, message, now_us)


def _subject_of(firing: Firing) -> tuple[GroupKey, str]:
    return firing.group, firing.subject
