"""``stepstream eval``: suites of cases run, compared and gated."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli import (
    errors,
    eval_agreement,
    eval_cases,
    eval_publish,
    eval_replay,
    eval_shadow,
    eval_tool,
)
from stepstream.cli.backtest import Runs, progress, scope_of
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.eval_replay import AgentReferenceOption, criteria_in
from stepstream.cli.files import read_text
from stepstream.cli.options import Format, takes
from stepstream.cli.options import FormatOption as ListFormatOption
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.evals.gate.policy import GatePolicy
    from stepstream.evals.gate.trials import Results
    from stepstream.evals.gate.verdict import Verdict
    from stepstream.schemas.settings import Settings

PANEL: Final = "Evaluate"
EVAL_HELP: Final = (
    "Run agents on suites of cases, score runs, and decide whether a version is worse."
)
# Not 1: a pipeline may repeat an undecided comparison with more trials, but not a failed one.
INCONCLUSIVE: Final = 3
EXIT_CODES: Final = {"pass": 0, "fail": errors.FAILED, "inconclusive": INCONCLUSIVE}


class Inconclusive(StrEnum):
    """What an inconclusive comparison counts as."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class GateFormat(StrEnum):
    """How a verdict is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"


CriteriaOption = Annotated[
    list[Path],
    typer.Option("-c", "--criteria", metavar="PATH", help="Criteria documents. May be repeated."),
]
SuiteArgument = Annotated[Path, typer.Argument(metavar="SUITE", help="File with one case a line.")]
ResultsArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files of results, the oldest first.")
]


@dataclass(frozen=True)
class Running:
    """How trials are run."""

    parallel: Annotated[
        int, typer.Option(metavar="INT", min=1, max=64, help="Number of trials at the same time.")
    ] = 2
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of a trial.")
    ] = 60.0
    seed: Annotated[
        int, typer.Option(metavar="INT", help="Seed of TRIAL_SEED, a variable of each trial.")
    ] = 0
    criteria: Annotated[
        list[Path] | None,
        typer.Option(
            "-c",
            "--criteria",
            metavar="PATH",
            help="Criteria documents for every case. May be repeated.",
        ),
    ] = None


@dataclass(frozen=True)
class Trying(Running):
    """How often and how a case is run."""

    trials: Annotated[
        int,
        typer.Option("-n", "--trials", metavar="INT", min=1, max=1000, help="Trials of each case."),
    ] = 1
    fail_under: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Least share of trials that must succeed, from 0 to 1.",
        ),
    ] = 0.0


@dataclass(frozen=True)
class InTurns(Running):
    """How often both versions are run at most, and where their results go."""

    trials: Annotated[
        int,
        typer.Option(
            "-n", "--trials", metavar="INT", min=1, max=1000, help="Most trials of a case and side."
        ),
    ] = 8
    results: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for baseline.jsonl and candidate.jsonl."),
    ] = None


@dataclass(frozen=True)
class SuiteOutput:
    """What is written of a suite."""

    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="File for the results, which `eval gate` reads."
        ),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for JUnit XML, with a test case for each case."),
    ] = None
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for the step events, for `stepstream replay`."),
    ] = None
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Record the calls of each trial here, for `eval replay`."
        ),
    ] = None


BaselineOption = Annotated[
    Path, typer.Option("--baseline", metavar="FILE", help="Results of the version in use.")
]
CandidateOption = Annotated[
    Path, typer.Option("--candidate", metavar="FILE", help="Results of the new version.")
]


@dataclass(frozen=True)
class Deciding:
    """How the verdict is reached."""

    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Metrics and margins (YAML or JSON)."),
    ] = None
    inconclusive: Annotated[
        Inconclusive | None,
        typer.Option(
            "--inconclusive",
            metavar="VERDICT",
            help="Verdict where the trials do not decide: pass, fail or inconclusive.",
        ),
    ] = None


@dataclass(frozen=True)
class Output:
    """How the verdict is printed."""

    format: Annotated[
        GateFormat,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Output format: text, json, markdown or github (annotations of a job).",
        ),
    ] = GateFormat.TEXT
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JUnit XML.")] = None
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also append Markdown, as to $GITHUB_STEP_SUMMARY."),
    ] = None
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Also store verdict and results, for SQL and the console."),
    ] = False


def register(app: typer.Typer) -> None:
    """Add the commands."""
    evals = typer.Typer(no_args_is_help=True, help=EVAL_HELP)
    evals.command("run")(run)
    evals.command("pair")(pair)
    evals.command("compare")(compare)
    evals.command("score")(score)
    evals.command("replay")(eval_replay.replay)
    evals.command("shadow")(eval_shadow.shadow)
    evals.command("import")(eval_cases.import_cases)
    evals.command("add")(eval_cases.add)
    evals.command("agreement")(eval_agreement.agreement)
    evals.command("gate")(gate)
    evals.command("publish")(eval_publish.publish)
    evals.command("tool")(eval_tool.tool)
    app.add_typer(evals, name="eval", rich_help_panel=PANEL)


@takes()
def run(
    settings: Settings,
    suite: SuiteArgument,
    agent: AgentReferenceOption,
    trying: Trying,
    written: SuiteOutput,
) -> None:
    """Run an agent on the cases of a suite, each trial in a process of its own.

    Every run is recorded and scored; nothing is sent. The exit code is 1 where fewer trials
    succeeded than --fail-under requires, and 2 for wrong use.
    """
    from stepstream.evals.cases import CasesError, parse_suite
    from stepstream.evals.gate.trials import lines_of
    from stepstream.evals.suite_output import junit, lines
    from stepstream.suites.agent import AgentError, load_agent
    from stepstream.suites.runner import Plan, check, run_suite

    # Everything is read before the first trial: a mistake in a file must not cost the trials.
    documents = criteria_in(trying.criteria) if trying.criteria else []
    try:
        made = parse_suite(str(suite), read_text(suite), documents)
        function = load_agent(agent)
        check(made, documents)
    except (CasesError, AgentError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    recordings = "" if written.record is None else str(written.record.absolute())
    plan = Plan(trying.trials, trying.parallel, trying.timeout, trying.seed, recordings)
    done = run_suite(made, function, agent, documents, plan)
    # Before the share is compared: the results of a suite that fails are needed most.
    if written.output is not None:
        written.output.parent.mkdir(parents=True, exist_ok=True)
        written.output.write_text("\n".join(lines_of(done.results)) + "\n", encoding="utf-8")
    if written.junit is not None:
        written.junit.write_text(junit(done.results), encoding="utf-8")
    if written.events is not None:
        text = "".join(f"{json.dumps(event)}\n" for event in done.events)
        written.events.write_text(text, encoding="utf-8")
    echo(*lines(done.results))
    trials = [trial for case in done.results.cases.values() for trial in case]
    # A trial without a known outcome, such as one that timed out, is no success.
    share = sum(trial.outcome is True for trial in trials) / len(trials)
    if share < trying.fail_under:
        raise typer.Exit(errors.FAILED)


@takes("clickhouse", settings=["project"])
def pair(
    settings: Settings,
    suite: SuiteArgument,
    baseline: Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="The agent in use.")],
    candidate: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="The new version of it.")
    ],
    *,
    in_turns: InTurns,
    deciding: Deciding,
    output: Output,
) -> None:
    """Run two versions of an agent in turns, and decide whether the candidate is worse.

    A provider's bad hour then meets both sides. After each round of the policy the gate is asked;
    the trials end with the first round that decides. Exit codes are those of `eval gate`.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.evals.cases import CasesError, parse_suite
    from stepstream.evals.gate.rounds import within
    from stepstream.evals.gate.trials import lines_of
    from stepstream.evals.gate.verdict import gate as decide
    from stepstream.suites.agent import AgentError, load_agent
    from stepstream.suites.runner import Plan, Version, check, run_pair

    chosen = _policy(deciding)
    if output.publish:
        require_clickhouse(settings)
    documents = criteria_in(in_turns.criteria) if in_turns.criteria else []
    try:
        made = parse_suite(str(suite), read_text(suite), documents)
        sides = (
            Version(baseline, load_agent(baseline)),
            Version(candidate, load_agent(candidate)),
        )
        check(made, documents)
    except (CasesError, AgentError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    plan = Plan(in_turns.trials, in_turns.parallel, in_turns.timeout, in_turns.seed)
    first, second = run_pair(
        made,
        sides,
        documents,
        plan,
        within(chosen.rounds, in_turns.trials),
        lambda one, other: decide(one, other, chosen).decided != "inconclusive",
    )
    if in_turns.results is not None:
        in_turns.results.mkdir(parents=True, exist_ok=True)
        for name, done in (("baseline", first), ("candidate", second)):
            text = "\n".join(lines_of(done.results)) + "\n"
            (in_turns.results / f"{name}.jsonl").write_text(text, encoding="utf-8")
    verdict = decide(first.results, second.results, chosen)
    _print(verdict, output)
    if output.publish:
        eval_publish.publish_verdict(settings, verdict, first.results, second.results, chosen)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


@takes()
def compare(settings: Settings, files: ResultsArgument) -> None:
    """Show results of several versions next to each other, without a decision."""
    from stepstream.evals.gate.output import side_text
    from stepstream.evals.gate.trials import ResultsError
    from stepstream.evals.gate.verdict import side_of

    try:
        echo(*(side_text(side_of(_results(file))) for file in files))
    except ResultsError as error:
        raise errors.Failure(str(error), errors.USAGE) from None


@takes("clickhouse")
def score(
    settings: Settings,
    runs: Runs,
    criteria: CriteriaOption,
    format: ListFormatOption = Format.TABLE,
) -> None:
    """Score recorded runs by Criteria documents: which succeeded, which did not, and why.

    The worker's own code evaluates the steps of the store. Nothing is sent and nothing is changed.
    A run that cannot be evaluated is unknown, which is not a failure.
    """
    from datetime import UTC, datetime

    from stepstream.backtest.score import score_stored
    from stepstream.cli import queries
    from stepstream.evals.names import unseen_tools

    documents = criteria_in(criteria)
    now = datetime.now(UTC)
    with queries.store(settings) as client, progress() as on_progress:
        scored = score_stored(client, scope_of(runs, now), documents, on_progress=on_progress)
    rows = [
        (run.trace_id, run.agent, run.agent_version, run.task, run.success, run.success_reason)
        for run in scored.values()
    ]
    columns = ("trace_id", "agent", "agent_version", "task", "success", "success_reason")
    print_rows(columns, rows, format, empty="no closed run matches", prose=("success_reason",))
    # A misspelt tool in a Criteria document matches no call, and every run would fail by it.
    for hint in unseen_tools(documents, (tool for run in scored.values() for tool in run.tools)):
        remark(hint)
    if rows:
        # Unknown runs are left out of the share: they are not failures.
        found = Counter(row[4] for row in rows)
        remark(
            f"{found['true']} of {found['true'] + found['false']} runs succeeded, "
            f"{found['unknown']} are unknown"
        )


@takes("clickhouse", settings=["project"])
def gate(
    settings: Settings,
    baseline: BaselineOption,
    candidate: CandidateOption,
    deciding: Deciding,
    output: Output,
) -> None:
    """Decide whether a candidate is worse than its baseline, from the results of both.

    The trials are paired by case. The exit code is 0 (pass), 1 (fail), 3 (inconclusive: the trials
    do not decide it) or 2 (wrong use). An unchanged agent fails in at most 5 % of the comparisons.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.evals.gate.trials import ResultsError
    from stepstream.evals.gate.verdict import gate as decide

    chosen = _policy(deciding)
    if output.publish:
        require_clickhouse(settings)
    try:
        sides = _results(baseline), _results(candidate)
        verdict = decide(*sides, chosen)
    except ResultsError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    _print(verdict, output)
    if output.publish:
        eval_publish.publish_verdict(settings, verdict, *sides, chosen)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


def _policy(deciding: Deciding) -> GatePolicy:
    import yaml

    from stepstream.evals.gate.policy import policy_of

    file, inconclusive = deciding.policy, deciding.inconclusive
    try:
        data: Any = {} if file is None else yaml.safe_load(read_text(file))
        made = policy_of(data)
    # RecursionError: YAML may be nested deeper than Python's stack allows.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.Failure(f"{file}: {error}", errors.USAGE) from None
    return made.model_copy(update={"inconclusive": inconclusive.value}) if inconclusive else made


def _results(file: Path) -> Results:
    from stepstream.evals.gate.trials import parse_results

    return parse_results(str(file), read_text(file))


def _print(verdict: Verdict, output: Output) -> None:
    from stepstream.evals.gate.output import as_json, github, junit, lines, markdown

    if output.junit is not None:
        output.junit.write_text(junit(verdict), encoding="utf-8")
    if output.markdown is not None:
        # Appended: $GITHUB_STEP_SUMMARY has the output of earlier steps.
        with output.markdown.open("a", encoding="utf-8") as file:
            file.write(markdown(verdict))
    if output.format is GateFormat.JSON:
        print_json(as_json(verdict))
    elif output.format is GateFormat.MARKDOWN:
        echo(markdown(verdict).rstrip("\n"))
    elif output.format is GateFormat.GITHUB:
        echo(*github(verdict))
    else:
        echo(*lines(verdict))
