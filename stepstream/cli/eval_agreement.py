"""``stepstream eval agreement``: a grader compared with labels of people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepstream.cli import errors
from stepstream.cli.files import read_text
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

MOST_REASONS: Final = 3


@takes()
def agreement(
    settings: Settings,
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="File with question, answer and label on each line."),
    ],
    grader: Annotated[
        str,
        typer.Option(metavar="NAME", help="Grader: module:function, or an entry point's name."),
    ],
    rubric: Annotated[str, typer.Option(metavar="TEXT", help="What the grader evaluates.")] = "",
    at_least: Annotated[
        float, typer.Option(metavar="SCORE", min=0, max=1, help="The lowest score that passes.")
    ] = 0.5,
) -> None:
    """Compare a grader with labels of people, before its grades are used.

    Prints a confusion table and Cohen's kappa. Grades that are unknown are counted apart.
    """
    from stepstream.evals.agreement import lines
    from stepstream.schemas.criteria import GraderCheck
    from stepstream.suites.agent import AgentError
    from stepstream.suites.labels import LabelsError, agreement_with, parse_labels

    check = GraderCheck(check="grader", grader=grader, rubric=rubric, at_least=at_least)
    try:
        found, reasons = agreement_with(check, parse_labels(str(labels), read_text(labels)))
    except (AgentError, LabelsError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    echo(*lines(found, grader))
    for reason in reasons[:MOST_REASONS]:
        remark(f"unknown: {reason}")
