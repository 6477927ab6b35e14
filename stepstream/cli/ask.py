"""``stepstream ask``: questions about runs and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli.errors import FAILED, USAGE, Failure
from stepstream.cli.options import (
    AgentOption,
    EnvironmentOption,
    Format,
    FormatOption,
    ProjectOption,
    takes,
)
from stepstream.common.terminal import echo
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.queries.question import Question

PANEL = "Inspect"


@dataclass(frozen=True)
class AskOptions:
    """The parameters that most questions have; the others are given as NAME=VALUE."""

    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to add up by, such as model.")
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION|TIME",
            help="Beginning of the window: an age (2h, 7d) or a time. Default: 24h.",
        ),
    ] = None
    until: Annotated[
        str | None, typer.Option(metavar="DURATION|TIME", help="End of the window. Default: now.")
    ] = None
    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    limit: Annotated[
        int | None, typer.Option(metavar="INT", min=1, max=100_000, help="Maximum number of rows.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(ask)


@takes("clickhouse")
def ask(
    settings: Settings,
    question: Annotated[
        str | None,
        typer.Argument(metavar="[QUESTION]", help="Without one, the questions are listed."),
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ABOUT] [NAME=VALUE ...]",
            help="The run, text, user ... that it is about; and other parameters of it.",
        ),
    ] = None,
    options: AskOptions = AskOptions(),
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the query for any ClickHouse client instead.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Ask a question about runs, costs, failures or tools.

    The answer is a table and one line that explains it. Without a question, all of them are listed
    with their parameters.
    """
    from stepstream.cli import printing, queries
    from stepstream.queries import QuestionError, find
    from stepstream.queries.ask import answered, prepared
    from stepstream.queries.parameters import Unanswerable
    from stepstream.queries.question import for_clients, rows_of, used_parameters

    if question is None:
        _list_questions(format)
        return
    try:
        asked = find(question)
        given = {**options.given(), **_given(asked, about or [])}
        with queries.store(settings) as client:
            rows = rows_of(client)
            what = prepared(rows, asked.name, given, datetime.now(UTC))
            answer = None if sql else answered(what, rows)
    except QuestionError as error:
        code = FAILED if isinstance(error, Unanswerable) else USAGE
        raise Failure(str(error), code) from None
    if answer is None:
        echo(for_clients(what.sql, used_parameters(what.sql, what.values)))
    else:
        printing.print_answer(answer.columns, answer.rows, answer.sentence, format)


def _given(asked: Question, words: Sequence[str]) -> dict[str, str]:
    """Parameters by name, of words that are NAME=VALUE or the value of a parameter to be given."""
    names = {parameter.name for parameter in asked.parameters}
    places = [parameter.name for parameter in asked.parameters if parameter.is_positional]
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        free = [place for place in places if place not in found]
        if equals and (name in names or not free):
            found[name] = value
        elif free:
            found[free[0]] = word
        else:
            raise Failure(
                f"{asked.name} takes {', '.join(sorted(names))} as NAME=VALUE; {word} is none",
                USAGE,
            )
    return found


def _list_questions(format: Format) -> None:
    from stepstream.cli.common import print_rows
    from stepstream.queries import QUESTIONS

    rows = [
        (
            question.name,
            question.asks,
            ", ".join(
                parameter.name.upper() if parameter.is_positional else parameter.name
                for parameter in question.parameters
            ),
        )
        for question in QUESTIONS.values()
        if question.is_listed
    ]
    print_rows(("question", "asks", "parameters"), rows, format, prose=("asks", "parameters"))
