"""``stepstream eval tool``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.files import read_text
from stepstream.cli.options import takes
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


@dataclass(frozen=True)
class Calling:
    """How the tool is called, and where the results go."""

    trials: Annotated[
        int,
        typer.Option("-n", "--trials", metavar="INT", min=1, max=1000, help="Calls of each case."),
    ] = 1
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of a call.")
    ] = 60.0
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File for the results."),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for JUnit XML, with a test case for each case."),
    ] = None


@takes()
def tool(
    settings: Settings,
    function: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="The tool, a function.")
    ],
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="File with one case a line.")],
    calling: Calling,
) -> None:
    """Call one tool with the arguments of each case, and check its results and errors.

    Each call is a process of its own; nothing is sent. The exit code is 1 where a case fails or a
    call cannot be compared, and 2 for wrong use.
    """
    from stepstream.evals.cases import CasesError
    from stepstream.evals.gate.trials import lines_of
    from stepstream.evals.suite_output import junit, lines
    from stepstream.evals.tool_cases import parse_tool_cases
    from stepstream.suites.agent import AgentError, load_agent
    from stepstream.suites.runner import Plan, Version
    from stepstream.suites.tools import run_tool

    text = read_text(cases)
    try:
        read = parse_tool_cases(str(cases), text)
        called = load_agent(function)
    except (CasesError, AgentError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    plan = Plan(calling.trials, timeout_s=calling.timeout)
    found = run_tool(Version(function, called), read, str(cases), version, plan)
    if calling.output is not None:
        calling.output.parent.mkdir(parents=True, exist_ok=True)
        calling.output.write_text("\n".join(lines_of(found)) + "\n", encoding="utf-8")
    if calling.junit is not None:
        calling.junit.write_text(junit(found), encoding="utf-8")
    echo(*lines(found))
    if not all(trial.outcome is True for case in found.cases.values() for trial in case):
        raise typer.Exit(errors.FAILED)
