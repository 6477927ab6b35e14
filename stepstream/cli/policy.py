"""``stepstream policy``: policies checked, explained, tested and suggested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.documents import PANEL, read_all
from stepstream.cli.options import (
    EnvironmentOption,
    Format,
    FormatOption,
    ProjectOption,
    takes,
)
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.admin.documents import Written
    from stepstream.backtest.saved_run import SavedRun, Tested
    from stepstream.backtest.suggest import Marked, Suggestion
    from stepstream.schemas.policy import Policy
    from stepstream.schemas.prices import PriceBook
    from stepstream.schemas.settings import Settings

POLICY_HELP = "Check, explain and test policies before they are applied; suggest limits."
MAX_NAMES: Final = 100_000
"""Agents, tasks and so on of the store that ``check --store`` reads of each kind."""
_NOT_TESTED: Final = "nothing was tested, because of"

FilesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="YAML or JSON files, or directories of them."),
]
PolicyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "-p", "--policy", metavar="PATH", help="A file or directory of policies. May be repeated."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    policy = typer.Typer(no_args_is_help=True, help=POLICY_HELP)
    policy.command("check")(check)
    policy.command("explain")(explain)
    policy.command("test")(run_tests)
    policy.command("suggest")(suggest)
    app.add_typer(policy, name="policy", rich_help_panel=PANEL)


@takes("clickhouse")
def check(
    settings: Settings,
    files: FilesArgument,
    *,
    store: Annotated[
        bool,
        typer.Option(
            "--store",
            help="Also search the store for the agents, tasks and so on that policies match.",
        ),
    ] = False,
) -> None:
    """Check documents without applying them; needs no Kafka.

    Every problem is printed with its file and line; the exit code is then 1. With --store, a name
    in a policy's match that no run of the last 30 days has is a problem too.
    """
    written = read_all(files, "the documents are not valid:")
    problems = _unknown_names(settings, written) if store else []
    if problems:
        raise errors.Failure("the documents match no runs:\n" + "\n".join(problems))
    for one in written:
        echo(f"{one.place}: {one.key} is valid{_described(one.document)}")
    if not written:
        raise errors.Failure(_no_documents(files))


def _unknown_names(settings: Settings, written: Sequence[Written]) -> list[str]:
    """The names in matches that no run has, each with its place and the nearest name."""
    from stepstream.cli import queries
    from stepstream.schemas.policy import Policy
    from stepstream.schemas.suggestions import did_you_mean

    names = list(Policy.model_fields["match"].default.model_dump())
    # A name that is left out would be reported as unknown.
    sql = ", ".join(f"groupUniqArray({MAX_NAMES})({name}) AS {name}" for name in names)
    with queries.store(settings) as client:
        known = queries.records(
            client, f"SELECT {sql} FROM runs WHERE start_time > now() - INTERVAL 30 DAY", {}
        )[0]
    problems = []
    for one in written:
        if not isinstance(one.document, Policy):
            continue
        for name, pattern in one.document.match.model_dump(exclude_defaults=True).items():
            # A pattern may be meant for agents that are still to come.
            if pattern not in known[name] and not set("*?[") & set(pattern):
                hint = did_you_mean(pattern, filter(None, known[name]))
                problems.append(f"{one.place}: no run has {name} {pattern}; {hint}")
    return problems


def _described(document: Any) -> str:
    from stepstream.schemas.policy import Policy

    if not isinstance(document, Policy):
        return ""
    given = document.match.model_dump(exclude_defaults=True)
    runs = ", ".join(f"{name} {pattern}" for name, pattern in given.items()) or "every run"
    names = [rule.alert_name for rule in document.rules if rule.enabled]
    names += [f"guardrail {one.name}" for one in document.guardrails if one.enabled]
    rules = ", ".join(names) or "no rule"
    return f": {rules} for {runs} ({document.mode})"


def _no_documents(paths: Sequence[Path]) -> str:
    return f"no documents in {', '.join(map(str, paths))}: files end in .yaml, .yml or .json"


@takes("kafka", settings=("project", "environment", "agent", "agent_version"))
def explain(
    settings: Settings,
    policy: PolicyOption = None,
    task: Annotated[str, typer.Option(metavar="NAME", help="The run's task.")] = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Show which rules apply to a run, from which policy, and why.

    The run is described by --project, --environment, --agent, --agent-version and --task. Without
    --policy, the policies in force are explained.
    """
    from stepstream.backtest.explain import explained

    policies = policies_in(policy) if policy else policies_in_force(settings)[0]
    owner = (
        settings.project,
        settings.environment,
        settings.agent,
        settings.agent_version,
        task,
    )
    rows = [
        (
            "yes" if row.applies else "no",
            row.rule,
            row.alert,
            row.policy,
            row.action,
            row.limits,
            row.why,
        )
        for row in explained(policies, owner)
    ]
    columns = ("applies", "rule", "alert", "policy", "action", "limits", "why")
    print_rows(columns, rows, format, prose=("why", "limits"), keep=("applies", "rule", "why"))


@takes()
def run_tests(
    settings: Settings,
    files: FilesArgument,
    policy: PolicyOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Run the tests of policies, and test policies against saved runs.

    PATH... are policies with `tests`, saved runs (`stepstream incident save` writes them) and
    prices, or directories of them. A policy's own tests are evaluated with that policy, a saved run
    with all of them. Needs no Kafka. The exit code is 1 where an expected alert is missing or
    late, or another one was raised.
    """
    saved_runs, others = _saved_runs(files)
    # Policies may be in the same folder as the saved runs: a repository has both.
    written = read_all([*others, *(policy or ())], _NOT_TESTED)
    policies, prices = _split(written)
    results = [*_own_tests(written, prices), *_evaluated(saved_runs, policies, prices)]
    if not results:
        raise errors.Failure(
            f"no tests in {', '.join(map(str, files))}: a policy has `tests`, and "
            "`stepstream incident save` writes saved runs"
        )
    if format is Format.JSON:
        print_json([_result(place, result) for place, result in results])
    else:
        for place, result in results:
            _print_result(place, result)
    # After all results: a build's log shows every failed test, not only the first.
    failed = sum(bool(result.problems) for _, result in results)
    remark(f"{len(results) - failed} of {len(results)} tests passed")
    if failed:
        raise typer.Exit(errors.FAILED)


def _own_tests(written: Sequence[Written], prices: PriceBook) -> Iterator[tuple[str, Tested]]:
    """The results of the policies' own tests, each with the policy's place."""
    from stepstream.backtest.policy_tests import evaluate_tests
    from stepstream.backtest.saved_run import SavedRunError
    from stepstream.schemas.policy import Policy

    for one in written:
        if not isinstance(one.document, Policy):
            continue
        place = f"{one.place}, policy {one.document.name}"
        try:
            yield from ((place, result) for result in evaluate_tests(one.document, prices))
        except SavedRunError as error:
            raise errors.Failure(f"{place}: {error}") from None


def _evaluated(
    saved_runs: Sequence[tuple[Path, SavedRun]], policies: Sequence[Policy], prices: PriceBook
) -> Iterator[tuple[str, Tested]]:
    from stepstream.backtest.saved_run import SavedRunError, evaluate_saved_run

    for file, saved in saved_runs:
        try:
            yield str(file), evaluate_saved_run(saved, policies, prices)
        except SavedRunError as error:
            raise errors.Failure(f"{file}: {error}") from None


def _saved_runs(paths: Sequence[Path]) -> tuple[list[tuple[Path, SavedRun]], list[Path]]:
    """The saved runs of the paths, and the files that have other documents."""
    from stepstream.admin.documents import DocumentsError
    from stepstream.admin.saved_run_files import read_saved_runs

    try:
        return read_saved_runs(paths)
    except DocumentsError as error:
        raise errors.Failure(f"{_NOT_TESTED}\n{error}") from None


def _print_result(place: str, result: Tested) -> None:
    echo(f"{'FAILED' if result.problems else 'passed'}  {result.saved.name}  ({place})")
    for found in result.found:
        share = "" if found.cost_share is None else f", {found.cost_share:.0%} of its cost"
        echo(f"    {found.severity} {found.alert} at step {found.steps}{share}: {found.message}")
    for made in result.decided:
        echo(f"    {made.decision} by {made.guardrail} at step {made.step}: {made.reason}")
    for problem in result.problems:
        echo(f"    wrong: {problem}")


def _result(place: str, result: Tested) -> dict[str, Any]:
    return {
        "file": place,
        # The field's name in JSON is older than the term and stays.
        "incident": result.saved.name,
        "passed": not result.problems,
        "problems": list(result.problems),
        "decisions": [asdict(made) for made in result.decided],
        "alerts": [asdict(found) for found in result.found],
    }


@dataclass(frozen=True)
class History:
    """The runs that limits are learnt from."""

    since: Annotated[
        str, typer.Option(metavar="DURATION|TIME", help="Runs that began since then.")
    ] = "30d"
    task: Annotated[str, typer.Option(metavar="PATTERN", help="Only this task.")] = "*"
    project: ProjectOption = None
    environment: EnvironmentOption = None


@takes("clickhouse")
def suggest(
    settings: Settings,
    history: History,
    agent: Annotated[str, typer.Option(metavar="PATTERN", help="The agent. Required.")] = "",
    false_alarms: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="The share of good runs that may raise an alert: 1%, 0.005."
        ),
    ] = "1%",
    format: FormatOption = Format.TABLE,
) -> None:
    """Suggest limits for an agent's runs, from its history and a false-alarm rate.

    Good runs are those that ended with status ok, without runs about which an alert was marked true
    (`stepstream alerts mark`). A limit is the upper end of a 95 % interval: with 97.5 % confidence
    at most --false-alarms of the good runs exceed it. Where there are too few runs, none is
    suggested. The policy is printed last, in mode observe.
    """
    from stepstream.backtest import suggest as limits
    from stepstream.cli import queries
    from stepstream.queries.parameters import like

    if not agent:
        raise errors.Failure("name the agent: --agent NAME", errors.USAGE)
    rate = _share(false_alarms)
    now = datetime.now(UTC)
    match = {
        "agent": agent,
        "task": history.task,
        "project": history.project or "*",
        "environment": history.environment or "*",
    }
    parameters = {name: like(pattern) for name, pattern in match.items()}
    since = queries.parse_since(history.since, now) or now
    parameters["since"] = since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    with queries.store(settings) as client:
        found = list(limits.suggestions(client, rate, parameters))
        marks = limits.marked(client, parameters)
    given = {name: pattern for name, pattern in match.items() if pattern != "*"}
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in agent.lower()).strip("-")
    document = limits.policy_document(f"suggested-{name or 'limits'}", given, found)
    if format is Format.JSON:
        print_json({"policy": document, "limits": [asdict(one) for one in found],
                    "marks": [asdict(one) for one in marks]})  # fmt: skip
    else:
        _print_suggestions(found, marks, rate, format)
    if not document["rules"]:
        needed = limits.runs_needed(rate)
        raise errors.Failure(
            f"too little history for a limit: a false-alarm rate of {rate:.3g} needs at least "
            f"{needed:,} good runs, there are {max(one.runs for one in found):,} of agent {agent}; "
            "take a longer --since or a higher --false-alarms"
        )
    if format is Format.TABLE:
        import yaml

        echo(yaml.safe_dump(document, sort_keys=False, default_flow_style=None).rstrip())


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 1e-6 <= share <= 0.5:
        raise errors.Failure(
            f"--false-alarms is {text}: give a share between 0.0001% and 50%, such as 1%",
            errors.USAGE,
        )
    return share


def _print_suggestions(
    found: Sequence[Suggestion], marks: Sequence[Marked], rate: float, format: Format
) -> None:
    from stepstream.queries.uncertainty import share_interval

    rows = [
        (
            one.measure.rule,
            one.limit,
            one.quantile,
            one.low,
            one.runs,
            one.exceeded,
            "" if one.limit is not None else f"needs {one.needed:,} good runs",
        )
        for one in found
    ]
    columns = ("rule", "limit", f"quantile_{1 - rate:.6g}", "low", "runs", "exceeded", "remark")
    print_rows(columns, rows, format, prose=("remark",), keep=("rule", "limit", "runs", "exceeded"))
    for one in marks:
        of = one.right + one.wrong
        low, high = share_interval(one.wrong / of, of)
        remark(
            f"{one.alert}: {one.wrong} of {of} marked alerts were false alarms "
            f"(95 % interval {low:.0%} to {high:.0%})"
        )


def policies_in(paths: Sequence[Path]) -> list[Policy]:
    """The policies of files and directories. Raises ``Failure``."""
    found, _ = _split(read_all(paths, "nothing was evaluated, because of"))
    if not found:
        raise errors.Failure(f"no policy in {', '.join(map(str, paths))}")
    return found


def _split(written: Sequence[Any]) -> tuple[list[Policy], PriceBook]:
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.policy import Policy
    from stepstream.schemas.prices import PriceBook

    documents = [one.document for one in written]
    policies = [document for document in documents if isinstance(document, Policy)]
    return policies, PriceBook(tuple(one for one in documents if isinstance(one, Prices)))


def policies_in_force(settings: Settings) -> tuple[list[Policy], PriceBook]:
    """The policies and prices in force."""
    from stepstream.admin import documents
    from stepstream.common.settings import require_kafka
    from stepstream.schemas.config import DocumentSet, UnreadableDocument
    from stepstream.schemas.policy import Policy

    require_kafka(settings)
    stored = DocumentSet()
    # A document that this release cannot read must not hide the others.
    for key, record in documents.in_force(settings).items():
        try:
            stored.apply(key.encode(), record.value)
        except UnreadableDocument as error:
            remark(str(error))
    return list(stored.of(Policy)), stored.price_book()
