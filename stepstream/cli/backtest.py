"""``stepstream backtest``: recorded runs evaluated with other policies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.documents import PANEL
from stepstream.cli.options import (
    AgentOption,
    EnvironmentOption,
    Format,
    FormatOption,
    ProjectOption,
    takes,
)
from stepstream.cli.policy import PolicyOption, policies_in
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.admin.policy_history import History
    from stepstream.backtest.evaluate import Backtest
    from stepstream.backtest.store import Scope
    from stepstream.backtest.timeline import Timeline
    from stepstream.schemas.settings import Settings

LOGGED_FROM: Final = 100_000
"""From this many events on, progress is printed where there is no terminal."""
SHOWN: Final = 20
"""New and vanished alerts that are printed; JSON lists all."""


@dataclass(frozen=True)
class Runs:
    """Which runs are evaluated."""

    since: Annotated[
        str, typer.Option(metavar="DURATION|TIME", help="Runs that began since then.")
    ] = "7d"
    until: Annotated[
        str, typer.Option(metavar="DURATION|TIME", help="Runs that began before then.")
    ] = ""
    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backtest", rich_help_panel=PANEL)(backtest)


@takes("kafka", "clickhouse")
def backtest(
    settings: Settings,
    runs: Runs,
    policy: PolicyOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Evaluate recorded runs with other policies: which alerts, which runs stopped, what saved.

    The worker's own detectors read the steps of the store in the order of their times, once with
    the policies in force and once with those of --policy added or in their place. Nothing is sent
    and nothing is changed.
    """
    from stepstream.admin.policy_history import read_history
    from stepstream.backtest.evaluate import backtest as evaluate
    from stepstream.backtest.parallel import EvaluationFailed
    from stepstream.cli import queries
    from stepstream.common.settings import require_kafka
    from stepstream.schemas.times import us_of

    if not policy:
        raise errors.Failure("name the policies to try: --policy FILE", errors.USAGE)
    given = policies_in(policy)
    require_kafka(settings)
    history = read_history(settings)
    now = datetime.now(UTC)
    scope = scope_of(runs, now)
    in_force = history.timeline.between(us_of(scope.since), us_of(scope.until))
    _note_history(history)
    _note_retention(settings, scope.since, now)
    with queries.store(settings) as client, progress() as on_progress:
        try:
            found = evaluate(
                client,
                scope,
                in_force,
                in_force.replaced(given),
                prices=history.prices,
                settings=settings,
                on_progress=on_progress,
            )
        except EvaluationFailed as error:
            raise errors.Failure(str(error)) from None
    if format is Format.JSON:
        print_json(_report(found, in_force))
    else:
        _print_changes(in_force)
        _print_report(found)


def scope_of(runs: Runs, now: datetime) -> Scope:
    """Which runs the options name."""
    from stepstream.backtest.store import Scope
    from stepstream.cli import queries
    from stepstream.queries.parameters import like

    return Scope(
        queries.parse_since(runs.since, now) or now,
        queries.parse_since(runs.until or None, now, "--until") or now,
        like(runs.project or "*"),
        like(runs.environment or "*"),
        like(runs.agent or "*"),
    )


def _note_retention(settings: Settings, since: datetime, now: datetime) -> None:
    kept = settings.steps_retention_days
    days = (now - since).total_seconds() / 86_400
    # Only noted: runs before that are evaluated with the steps that are left.
    if days > kept:
        remark(
            f"steps are kept for {kept} days (steps_retention_days): runs before that are missing "
            "or incomplete"
        )


def _note_history(history: History) -> None:
    for problem in history.unreadable:
        remark(problem)
    for name in history.deleted_at_unknown_times:
        remark(
            f"policy {name} was deleted, and the topic config no longer has the time: the runs are "
            "evaluated without it"
        )


def _print_changes(in_force: Timeline) -> None:
    """The changes within the time range: runs before and after them are evaluated differently."""
    from stepstream.render.values import format_time

    for one in _changes(in_force):
        number = f" (revision {one['revision']})" if one["revision"] else ""
        remark(
            f"policy {one['policy']}{number} was {one['what']} at {format_time(one['at_us'])}: "
            "runs are evaluated by what was in force when they began"
        )


def _changes(in_force: Timeline) -> list[dict[str, Any]]:
    from stepstream.schemas.times import time_of

    found: list[dict[str, Any]] = []
    known = {policy.name: policy.revision for policy in in_force.policies}
    for change in in_force.changes:
        revision = None if change.policy is None else change.policy.revision
        # A revision that is kept has two records: under its own key, and as the one in force.
        if revision is not None and known.get(change.name) == revision:
            continue
        what = "deleted" if revision is None else "changed" if change.name in known else "applied"
        if revision is None:
            known.pop(change.name, None)
        else:
            known[change.name] = revision
        found.append(
            {
                "at": time_of(change.at_us).isoformat(),
                "at_us": change.at_us,
                "policy": change.name,
                "revision": revision or 0,
                "what": what,
            }
        )
    return found


def _print_report(found: Backtest) -> None:
    from stepstream.render.values import format_time
    from stepstream.schemas.formatting import format_number_of, format_usd
    from stepstream.schemas.times import us_of

    scope, result = found.scope, found.comparison
    echo(
        f"{format_number_of(found.runs, 'run')} with {format_number_of(found.steps, 'step')}, "
        f"{format_time(us_of(scope.since))} to {format_time(us_of(scope.until))}"
    )
    # Of both: an alert that the new policy no longer raises has a row with 0.
    names = sorted({*result.before, *result.after})
    rows = [
        (name, severity, result.before[name, severity], result.after[name, severity])
        for name, severity in names
    ]
    print_rows(
        ("alert", "severity", "in_force", "with_policy"), rows, Format.TABLE, empty="no alerts"
    )
    _print_alerts("new", result.new)
    _print_alerts("no longer raised", result.gone)
    if result.stopped:
        echo(
            f"would have stopped or paused {format_number_of(len(result.stopped), 'run')} and "
            f"saved {format_usd(result.saved_nanos)}; {result.stopped_in_error} of them went on "
            "to succeed"
        )
    _print_agreement(found)
    if found.missing_steps:
        remark(
            f"{format_number_of(found.missing_steps, 'step')} of these runs are not in the store "
            "any more: retention has removed them, and less was found than could be"
        )
    if found.missing_contents:
        remark(
            f"{format_number_of(found.missing_contents, 'step')} had contents that were not "
            "captured: rules that read contents found less than they could"
        )


def _print_alerts(title: str, alerts: Sequence[Any]) -> None:
    from stepstream.render.values import format_time
    from stepstream.schemas.alert_text import sentence

    for alert in alerts[:SHOWN]:
        # Alerts over many runs have no run, those over a project no agent.
        about = alert.trace_id[:8] or alert.agent or alert.project
        echo(
            f"{title}: {format_time(alert.opened_at)} {alert.severity} {alert.alert} {about}: "
            f"{sentence(alert)}"
        )
    if len(alerts) > SHOWN:
        echo(f"{title}: {len(alerts) - SHOWN} more; --format json lists all")


def _print_agreement(found: Backtest) -> None:
    agreement = found.agreement
    if agreement.share is None:
        remark("no alert about these runs was raised before, so there is nothing to compare with")
        return
    whole = agreement.same + len(agreement.missing) + len(agreement.extra)
    remark(
        "the policies in force at the time agree with the alerts that were really raised in "
        f"{agreement.same} of {whole} ({agreement.share:.1%}): {len(agreement.missing)} were "
        f"raised only then, {len(agreement.extra)} only now"
    )


def _report(found: Backtest, in_force: Timeline) -> dict[str, Any]:
    import msgspec

    result, agreement = found.comparison, found.agreement

    def counted(counts: Any) -> list[dict[str, Any]]:
        return [
            {"alert": name, "severity": severity, "count": count}
            for (name, severity), count in sorted(counts.items())
        ]

    return {
        "since": found.scope.since.isoformat(),
        "until": found.scope.until.isoformat(),
        "runs": found.runs,
        "steps": found.steps,
        "events": found.events,
        "policy_changes": [
            {name: value for name, value in one.items() if name != "at_us"}
            for one in _changes(in_force)
        ],
        "in_effect": counted(result.before),
        "with_policy": counted(result.after),
        "new": [msgspec.to_builtins(alert) for alert in result.new],
        "gone": [msgspec.to_builtins(alert) for alert in result.gone],
        "stopped": [asdict(one) for one in result.stopped],
        "saved_nanos": result.saved_nanos,
        "stopped_in_error": result.stopped_in_error,
        "agreement": {
            "share": agreement.share,
            "same": agreement.same,
            "missing": [key._asdict() for key in agreement.missing],
            "extra": [key._asdict() for key in agreement.extra],
        },
        "steps_missing": found.missing_steps,
        "steps_without_contents": found.missing_contents,
    }


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """A bar on stderr if that is a terminal, else a line for every tenth of many events.

    It is called with the events so far and about how many there will be; 0: not known.
    """
    if not sys.stderr.isatty():
        yield _ReportedTenths()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from stepstream.common.terminal import console

    columns = (
        BarColumn(),
        TextColumn("{task.completed:,.0f} of about {task.total:,.0f} events", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda events, expected=0: bar.update(
            task, completed=events, total=max(1, events, expected)
        )


class _ReportedTenths:
    def __init__(self) -> None:
        self._tenths = 0

    def __call__(self, events: int, expected: int = 0) -> None:
        # In a file or a pipe each change of a bar would be a line of its own.
        tenths = min(10, 10 * events // max(1, expected))
        if expected >= LOGGED_FROM and tenths > self._tenths:
            self._tenths = tenths
            remark(f"{events:,} of about {expected:,} events evaluated")
