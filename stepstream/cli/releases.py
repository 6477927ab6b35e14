"""``stepstream releases``, ``diff``, ``promote`` and ``rollback``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.build import PANEL
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.options import (
    ByOption,
    EnvironmentOption,
    Format,
    FormatOption,
    ProjectOption,
    takes,
)
from stepstream.common.terminal import echo, remark
from stepstream.schemas.release import SHOWN_HASH

if TYPE_CHECKING:
    from stepstream.queries.answer import Answer
    from stepstream.releases.diff import Difference
    from stepstream.releases.promote import Request
    from stepstream.schemas.promotion import Decision, Promotion
    from stepstream.schemas.release import Release
    from stepstream.schemas.release_log import Published, ReleaseLog
    from stepstream.schemas.settings import Settings


@dataclass(frozen=True)
class Change:
    """How a label is changed."""

    label: Annotated[str, typer.Option(metavar="NAME", help="The label to change.")] = "production"
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit log.")] = ""
    # Compared by the worker when it decides, so that two people do not undo each other's change.
    expect: Annotated[
        str,
        typer.Option(metavar="VERSION", help="Only if the label names this version at present."),
    ] = ""
    by: ByOption = ""
    # A running worker decides within seconds; the rest is for one that has to start again first.
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait for the decision.")
    ] = "30s"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("releases", rich_help_panel=PANEL)(releases)
    app.command("diff", rich_help_panel=PANEL)(diff)
    app.command("promote", rich_help_panel=PANEL)(promote)
    app.command("rollback", rich_help_panel=PANEL)(rollback)


@dataclass(frozen=True)
class Listed:
    """What is listed instead of releases."""

    history: Annotated[
        bool, typer.Option("--history", help="List the promotions and rollbacks instead.")
    ] = False
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="List runs whose configuration is not that of a release (config_drift)."
        ),
    ] = False
    since: Annotated[
        str, typer.Option(metavar="DURATION|TIME", help="Of --drift: runs since then.")
    ] = "7d"


@takes("kafka", "clickhouse")
def releases(
    settings: Settings,
    listed: Listed,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="An agent, or AGENT@VERSION (or a label or hash) to print one release in full.",
        ),
    ] = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """List the published releases and their labels, the decisions about them, or their drift.

    --drift lists runs without a release, of an agent that has releases; runs with a release that
    was never published; and runs with another version, other tools or models than their release.
    """
    from stepstream.common.settings import require_kafka
    from stepstream.releases.promote import find
    from stepstream.releases.topic import read_log

    require_kafka(settings)
    # Releases and decisions are in Kafka: all but --drift works without a store.
    log = read_log(settings)
    agent, _, version = name.partition("@")
    if version:
        _show(find(log, agent, version), format)
    elif listed.history:
        _print_history(log, agent, format)
    elif listed.drift:
        _print_drift(settings, log, agent, listed.since, format)
    else:
        _print_releases(log, agent, format)


def _print_releases(log: ReleaseLog, agent: str, format: Format) -> None:
    agents = [agent] if agent else log.agents()
    rows = [_row(log, one) for name in agents for one in log.releases(name)]
    columns = ("release", "labels", "hash", "published_at", "prompts", "tools", "source")
    empty = "no releases; `stepstream build PATH --publish` publishes one"
    print_rows(columns, rows, format, empty=empty, keep=("labels",))


def _row(log: ReleaseLog, one: Published) -> tuple[Any, ...]:
    release, head = one.release, log.head(one.release.agent)
    labels = {} if head is None else head.labels
    named = [label for label, found in sorted(labels.items()) if found.release == release.hash]
    return (
        release.title,
        ", ".join(named),
        release.short_hash,
        datetime.fromtimestamp(one.timestamp_ms / 1000, UTC),
        len(release.prompts),
        ", ".join(tool.name for tool in release.tools),
        # As long as git's own abbreviations in large repositories; + means uncommitted changes.
        release.source.revision[:12] + ("+" if release.source.changed else ""),
    )


def _print_history(log: ReleaseLog, agent: str, format: Format) -> None:
    agents = [agent] if agent else log.agents()
    decisions = [one for name in agents for one in log.decisions(name)]
    # Each agent's decisions are in order already; together they are ordered by time.
    rows = [_decision_row(one) for one in sorted(decisions, key=lambda one: one.decided_at)]
    columns = ("at", "agent", "label", "action", "from", "to", "outcome", "by", "gates", "why")
    print_rows(columns, rows, format, empty="nothing was promoted yet", prose=("why",))


def _decision_row(decision: Decision) -> tuple[Any, ...]:
    promotion = decision.promotion
    return (
        datetime.fromtimestamp(decision.decided_at / 1e6, UTC),
        promotion.agent,
        promotion.label,
        promotion.action,
        decision.previous_version,
        decision.wanted_version,
        decision.outcome,
        promotion.by,
        _gates(promotion),
        decision.why or promotion.reason,
    )


def _gates(promotion: Promotion) -> str:
    found = [f"{one.gate}: {one.outcome}" for one in promotion.verdicts]
    if promotion.override:
        found.append(f"{promotion.override}: overridden")
    return ", ".join(found)


def _print_drift(
    settings: Settings, log: ReleaseLog, agent: str, since: str, format: Format
) -> None:
    from stepstream.cli import queries
    from stepstream.queries.ask import ask
    from stepstream.queries.parameters import QuestionError
    from stepstream.releases.drift import config_drift

    try:
        with queries.store(settings) as client:
            found = ask(client, "configurations", agent=agent or "*", since=since)
    except QuestionError as error:
        raise queries.failure(error) from None
    rows = [
        (
            one.agent,
            one.agent_version,
            one.release[:SHOWN_HASH],
            one.kind,
            one.detail,
            one.runs,
            one.last_run,
            one.trace_id,
        )
        for one in config_drift(found.records(), log)
    ]
    columns = (
        "agent",
        "agent_version",
        "release",
        "config_drift",
        "detail",
        "runs",
        "last_run",
        "trace_id",
    )
    print_rows(columns, rows, format, empty="every run used a release as published")


def _show(release: Release, format: Format) -> None:
    # Prompts and tools are nested: they have no rows.
    if format is Format.CSV:
        raise errors.Failure(
            "a release cannot be printed as CSV: use --format json, or no --format for text",
            errors.USAGE,
        )
    data = release.model_dump(mode="json")
    if format is Format.JSON:
        print_json(data)
        return
    import yaml

    echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip("\n"))


@takes("kafka", "clickhouse")
def diff(
    settings: Settings,
    old: Annotated[str, typer.Argument(metavar="AGENT@VERSION", help="The release before.")],
    new: Annotated[
        str, typer.Argument(metavar="AGENT@VERSION", help="The release that is compared with it.")
    ],
    *,
    since: Annotated[
        str, typer.Option(metavar="DURATION|TIME", help="Runs since then are compared.")
    ] = "30d",
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare two releases: their contents, and the figures of their runs.

    The figures (share of errors, cost, duration, steps, tokens) are means per run of each version,
    with the number of runs and the 95 % interval of the difference. Without a store only the
    contents are compared.
    """
    from stepstream.common.settings import require_kafka
    from stepstream.releases.diff import differences
    from stepstream.releases.topic import read_log

    require_kafka(settings)
    log = read_log(settings)
    first, second = _named(log, old), _named(log, new)
    if format is Format.CSV:
        raise errors.Failure("a comparison is printed as table or json", errors.USAGE)
    found = differences(first, second)
    scope: dict[str, Any] = {
        "since": since,
        "project": project or "*",
        "environment": environment or "*",
    }
    figures = _figures(settings, first, second, scope)
    if format is Format.JSON:
        print_json(
            {
                "old": first.title,
                "new": second.title,
                "differences": [asdict(one) for one in found],
                "figures": [] if figures is None else figures.records(),
            }
        )
        return
    _print_diff(first, second, found)
    if figures is not None:
        _print_figures(figures)


def _named(log: ReleaseLog, name: str) -> Release:
    from stepstream.releases.promote import find

    agent, _, version = name.partition("@")
    if not version:
        raise errors.Failure(f"name the version: {agent}@VERSION", errors.USAGE)
    return find(log, agent, version)


def _figures(
    settings: Settings, old: Release, new: Release, scope: dict[str, Any]
) -> Answer | None:
    """How the runs of two versions differ; None where that cannot be asked."""
    from stepstream.cli import queries
    from stepstream.queries.ask import ask
    from stepstream.queries.parameters import QuestionError

    # The contents are compared without a store too, so missing figures are no failure.
    if not settings.clickhouse_url:
        remark("no figures: no store is set (STEPSTREAM_CLICKHOUSE_URL)")
        return None
    if old.agent != new.agent:
        remark("no figures: they are releases of different agents")
        return None
    try:
        with queries.store(settings) as client:
            return ask(
                client, "versions", agent=old.agent, old=old.version, new=new.version, **scope
            )
    except QuestionError as error:
        raise queries.failure(error) from None
    except errors.Failure as error:
        remark(f"no figures: {error}")
        return None


def _print_diff(old: Release, new: Release, found: Sequence[Difference]) -> None:
    echo(f"{old.title} {old.short_hash} -> {new.title} {new.short_hash}")
    if not found:
        echo("prompts, parameters, tools and criteria are the same")
    for one in found:
        echo(f"{one.part}: {one.what}")
        for line in one.lines:
            echo(f"  {line}")


def _print_figures(figures: Answer) -> None:
    columns = ("measure", "old_runs", "new_runs", "old_value", "new_value", "difference", "low")
    shown = [tuple(_number(row[name]) for name in (*columns, "high")) for row in figures.records()]
    echo("")
    print_rows((*columns, "high"), shown, Format.TABLE)
    echo(figures.sentence)


def _number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


@takes("kafka")
def promote(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="AGENT@VERSION", help="The release.")],
    change: Change,
    override: Annotated[
        str,
        typer.Option(
            "--override", metavar="GATE", help="Ignore this gate; needs --reason and is recorded."
        ),
    ] = "",
) -> None:
    """Give a label to a release; agents that use the label get this release.

    The gates that a policy requires are asked first. A worker decides; the command is refused if
    the label was changed meanwhile. Exit code 1 when it is refused.
    """
    from stepstream.releases.promote import promote as promoted

    agent, _, version = name.partition("@")
    if not version:
        raise errors.Failure(f"name the version: stepstream promote {agent}@VERSION", errors.USAGE)
    request = _request(agent, change, override)
    _decided(lambda wait_s: promoted(settings, request, version, wait_s=wait_s), change)


@takes("kafka")
def rollback(
    settings: Settings,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent.")],
    change: Change,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="VERSION", help="Release that had the label. Default: the one before."
        ),
    ] = "",
) -> None:
    """Give a label back to the release that had it before.

    No gate is asked. A second rollback goes one release further back.
    """
    from stepstream.releases.promote import rollback as rolled_back

    request = _request(agent, change)
    _decided(lambda wait_s: rolled_back(settings, request, to, wait_s=wait_s), change)


def _request(agent: str, change: Change, override: str = "") -> Request:
    import re

    from stepstream.common.person import who
    from stepstream.releases.promote import Request
    from stepstream.schemas.promotion import LABEL_PATTERN, MAX_TEXT
    from stepstream.schemas.release import AGENT_PATTERN

    # Checked before it is sent: a worker would refuse it only after the command has waited.
    wrong = ""
    if not re.fullmatch(AGENT_PATTERN, agent):
        wrong = f"{agent!r} is no name of an agent with releases"
    elif not re.fullmatch(LABEL_PATTERN, change.label):
        wrong = f"--label {change.label}: lower-case letters, digits and _.- only"
    elif override and not change.reason.strip():
        wrong = "--override needs --reason: it is recorded"
    elif max(len(change.reason), len(change.by)) > MAX_TEXT:
        wrong = f"--reason and --by have at most {MAX_TEXT} characters"
    if wrong:
        raise errors.Failure(wrong, errors.USAGE)
    return Request(agent, change.by or who(), change.label, change.reason, change.expect, override)


def _decided(ask: Callable[[float], Decision], change: Change) -> None:
    """Ask for the change and print what was decided. Raises ``Failure`` for a refusal."""
    from stepstream.schemas.durations import parse_duration_us

    try:
        wait_s = parse_duration_us(change.wait) / 1e6
    except ValueError as error:
        raise errors.Failure(f"--wait: {error}", errors.USAGE) from None
    decision = ask(wait_s)
    promotion = decision.promotion
    if decision.outcome == "refused":
        raise errors.Failure(f"refused: {decision.why}")
    before = f", before {decision.previous_version}" if decision.previous else ""
    echo(f"{promotion.label} of {promotion.agent} is {decision.version}{before}")
