"""``stepstream eval shadow``: a candidate on the inputs of production runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.backtest import Runs, scope_of
from stepstream.cli.eval_replay import criteria_in
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.suites.shadow import Shadowed


@dataclass(frozen=True)
class Shadowing:
    """How a candidate is run on production's inputs."""

    sample: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Share of the runs, from 0 to 1.")
    ] = 0.05
    max_usd: Annotated[
        float | None,
        typer.Option(metavar="USD", min=0, help="No run begins once this much was spent."),
    ] = None
    live_tools: Annotated[
        bool,
        typer.Option(
            "--live-tools", help="Call the tools. Only for agents whose tools change nothing."
        ),
    ] = False
    alert: Annotated[
        bool,
        typer.Option("--alert", help="Raise the alert shadow_worse if the candidate is worse."),
    ] = False
    parallel: Annotated[
        int, typer.Option(metavar="INT", min=1, max=64, help="Number of runs at the same time.")
    ] = 2
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of a run.")
    ] = 60.0


CandidateOption = Annotated[
    str,
    typer.Option(
        "--candidate",
        metavar="MODULE:FUNCTION",
        help="Function that takes the input of a run and returns the answer.",
    ),
]
FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for both files of results.")
]


@takes("kafka", "clickhouse", settings=["recordings"])
def shadow(
    settings: Settings,
    runs: Runs,
    candidate: CandidateOption,
    criteria: Annotated[
        list[Path],
        typer.Option("-c", "--criteria", metavar="PATH", help="Criteria documents."),
    ],
    shadowing: Shadowing,
    output: FolderOption = Path("shadow"),
) -> None:
    """Run a candidate on the inputs of production runs, and write the results of both.

    Models are called. Tools are served from the recordings of the runs, so that nothing is changed
    twice; a call that was not recorded ends the run, which is then unknown. `stepstream eval gate`
    compares the two files. Runs of one session are one case.
    """
    from datetime import UTC, datetime

    from stepstream.cli import queries
    from stepstream.evals.gate.trials import lines_of
    from stepstream.evals.suite_output import lines
    from stepstream.suites.agent import AgentError, load_agent
    from stepstream.suites.runner import Plan
    from stepstream.suites.shadow import ShadowError, ShadowPlan
    from stepstream.suites.shadow import shadow as shadowed

    documents = criteria_in(criteria)
    if not shadowing.live_tools and not settings.recordings:
        raise errors.Failure(
            "name the folder of recordings that tools are served from, --recordings, or call the "
            "tools with --live-tools if they change nothing",
            errors.USAGE,
        )
    plan = ShadowPlan(
        shadowing.sample,
        shadowing.max_usd,
        "" if shadowing.live_tools else settings.recordings,
        Plan(1, shadowing.parallel, shadowing.timeout),
    )
    try:
        function = load_agent(candidate)
        with queries.store(settings) as client:
            scope = scope_of(runs, datetime.now(UTC))
            found = shadowed(client, scope, documents, function, candidate, plan)
    except (AgentError, ShadowError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    output.mkdir(parents=True, exist_ok=True)
    for name, results in (("production", found.production), ("candidate", found.candidate)):
        file = output / f"{name}.jsonl"
        file.write_text("\n".join(lines_of(results)) + "\n", encoding="utf-8")
        echo(*lines(results))
    for reason, number in found.left_out.items():
        remark(f"{number} runs are left out: {reason}")
    echo(_compared(found))
    if shadowing.alert:
        _alert(settings, found)
    echo(
        f"stepstream eval gate --baseline {output / 'production.jsonl'} "
        f"--candidate {output / 'candidate.jsonl'}"
    )


def _compared(found: Shadowed) -> str:
    from stepstream.evals.gate.sequence import MIN_SESSIONS

    seen = found.compared()
    change = f"{100 * seen.difference:+.1f} points of success"
    if seen.is_worse:
        return f"WORSE: {change}, below {100 * seen.upper:+.1f}"
    if seen.candidate.sessions < MIN_SESSIONS:
        return f"{change}; {seen.candidate.sessions} sessions of {MIN_SESSIONS} that are needed"
    return f"{change}; not shown to be worse (below {100 * seen.upper:+.1f})"


def _alert(settings: Settings, found: Shadowed) -> None:
    import msgspec

    from stepstream.admin.commands import send_records
    from stepstream.suites.shadow import finding_of

    finding = finding_of(found, time.time_ns() // 1_000)
    if finding is None:
        return
    value = msgspec.json.encode(finding)
    send_records(settings, [("findings", finding.project.encode(), value, [])])
    remark(f"the alert shadow_worse is raised: {finding.message}")
