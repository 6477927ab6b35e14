"""``stepstream policy``: policies checked, explained and tested before they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.documents import PANEL, read_all
from stepstream.cli.options import (
    Format,
    FormatOption,
    takes,
)
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.backtest.saved_run import SavedRun, Tested
    from stepstream.schemas.policy import Policy
    from stepstream.schemas.prices import PriceBook
    from stepstream.schemas.settings import Settings

POLICY_HELP = "Check, explain and test policies before they are applied."
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
    app.add_typer(policy, name="policy", rich_help_panel=PANEL)


@takes()
def check(settings: Settings, files: FilesArgument) -> None:
    """Check documents without applying them; needs no Kafka.

    Every problem is printed with its file and line; the exit code is then 1.
    """
    written = read_all(files, "the documents are not valid:")
    for one in written:
        echo(f"{one.place}: {one.key} is valid{_described(one.document)}")
    if not written:
        raise errors.Failure(_no_documents(files))


def _described(document: Any) -> str:
    from stepstream.schemas.policy import Policy

    if not isinstance(document, Policy):
        return ""
    given = document.match.model_dump(exclude_defaults=True)
    runs = ", ".join(f"{name} {pattern}" for name, pattern in given.items()) or "every run"
    rules = ", ".join(rule.alert_name for rule in document.rules if rule.enabled) or "no rule"
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
    --policy, the policies in effect are explained.
    """
    from stepstream.backtest.explain import explained

    policies = policies_in(policy) if policy else in_effect(settings)[0]
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
    """Test policies against saved runs: the alerts of each run are compared with the expected.

    PATH... are saved runs (`stepstream incident save` writes them), policies and prices, or
    directories of them. Needs no Kafka. The exit code is 1 where an expected alert is missing or
    late, or another one was raised.
    """
    from stepstream.backtest.saved_run import SavedRunError, evaluate_saved_run

    saved_runs, others = _saved_runs(files)
    if not saved_runs:
        raise errors.Failure(
            f"no saved runs in {', '.join(map(str, files))}: `stepstream incident save` writes them"
        )
    # Policies may be in the same folder as the saved runs: a repository has both.
    policies, prices = _split(read_all([*others, *(policy or ())], _NOT_TESTED))
    results = []
    for file, saved in saved_runs:
        try:
            results.append((file, evaluate_saved_run(saved, policies, prices)))
        except SavedRunError as error:
            raise errors.Failure(f"{file}: {error}") from None
    if format is Format.JSON:
        print_json([_result(file, result) for file, result in results])
    else:
        for file, result in results:
            _print_result(file, result)
    failed = sum(bool(result.problems) for _, result in results)
    remark(f"{len(results) - failed} of {len(results)} saved runs passed")
    if failed:
        raise typer.Exit(errors.FAILED)


def _saved_runs(paths: Sequence[Path]) -> tuple[list[tuple[Path, SavedRun]], list[Path]]:
    """The saved runs of the paths, and the files that have other documents."""
    from stepstream.admin.documents import DocumentsError
    from stepstream.admin.saved_run_files import read_saved_runs

    try:
        return read_saved_runs(paths)
    except DocumentsError as error:
        raise errors.Failure(f"{_NOT_TESTED}\n{error}") from None


def _print_result(file: Path, result: Tested) -> None:
    echo(f"{'FAILED' if result.problems else 'passed'}  {result.saved.name}  ({file})")
    for found in result.found:
        share = "" if found.cost_share is None else f", {found.cost_share:.0%} of its cost"
        echo(f"    {found.severity} {found.alert} at step {found.steps}{share}: {found.message}")
    for problem in result.problems:
        echo(f"    wrong: {problem}")


def _result(file: Path, result: Tested) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "file": str(file),
        # The field's name in JSON is older than the term and stays.
        "incident": result.saved.name,
        "passed": not result.problems,
        "problems": list(result.problems),
        "alerts": [asdict(found) for found in result.found],
    }


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


def in_effect(settings: Settings) -> tuple[list[Policy], PriceBook]:
    """The policies and prices in effect."""
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
