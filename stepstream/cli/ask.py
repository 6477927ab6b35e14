"""``stepstream ask``: questions about runs and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli.errors import USAGE, Failure
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
            help="Beginning of the time range: an age (2h, 7d) or a time. Default: 24h.",
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(metavar="DURATION|TIME", help="End of the time range. Default: now."),
    ] = None
    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    limit: Annotated[
        int | None, typer.Option(metavar="INT", min=1, max=100_000, help="Maximum number of rows.")
    ] = None

    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Of cost-check: the usage export of a provider."
        ),
    ] = None
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the query for any ClickHouse client instead.")
    ] = False

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        # Only what was given: each question has its own defaults.
        names = ("by", "since", "until", "project", "environment", "agent", "limit")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


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
    format: FormatOption = Format.TABLE,
) -> None:
    """Ask a question about runs, costs, failures or tools.

    The answer is a table and one line that explains it. Without a question, all of them are listed
    with their parameters.
    """
    from stepstream.cli import printing, queries
    from stepstream.queries import QuestionError, find
    from stepstream.queries.ask import answered, prepared
    from stepstream.queries.cost_check import COST_CHECK
    from stepstream.queries.question import for_clients, rows_of, used_parameters

    if question is None:
        _list_questions(format)
        return
    if question == COST_CHECK:
        _cost_check(settings, options, about or [], format)
        return
    if options.csv is not None:
        raise Failure(f"--csv is for {COST_CHECK}", USAGE)
    try:
        asked = find(question, COST_CHECK)
        given = _given(asked, about or [], options.given())
        with queries.store(settings) as client:
            rows = rows_of(client)
            what = prepared(rows, asked.name, given, datetime.now(UTC))
            answer = None if options.sql else answered(what, rows)
    except QuestionError as error:
        raise queries.failure(error) from None
    if answer is None:
        echo(for_clients(what.sql, used_parameters(what.sql, what.values)))
    else:
        printing.print_answer(answer.columns, answer.rows, answer.sentence, format)


def _cost_check(
    settings: Settings, options: AskOptions, words: Sequence[str], format: Format
) -> None:
    from stepstream.cli import printing, queries
    from stepstream.queries.cost_check import cost_check_of_file
    from stepstream.queries.parameters import QuestionError

    file = options.csv
    if file is None:
        raise Failure("cost-check needs --csv FILE, the usage export of a provider", USAGE)
    given = dict(word.partition("=")[::2] for word in words)
    if set(given) - {"provider"} or options.given() or options.sql:
        raise Failure("cost-check takes provider=NAME and --csv FILE", USAGE)
    try:
        with queries.store(settings) as client:
            answer = cost_check_of_file(client, file, given.get("provider", "*"))
    except QuestionError as error:
        raise Failure(str(error), USAGE) from None
    printing.print_answer(answer.columns, answer.rows, answer.sentence, format)


def _given(asked: Question, words: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name: those of options, and of words that are NAME=VALUE or a value alone."""
    names = {parameter.name for parameter in asked.parameters}
    places = [parameter.name for parameter in asked.parameters if parameter.is_positional]
    found = dict(options)
    for word in words:
        name, equals, value = word.partition("=")
        free = [place for place in places if place not in found]
        # A text with = in it, such as a=b in a search, is a value while a place is free.
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
    from stepstream.queries.cost_check import COST_CHECK

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
    rows.append(
        (COST_CHECK, "Does a provider's usage export agree with our costs?", "--csv FILE, provider")
    )
    print_rows(("question", "asks", "parameters"), rows, format, prose=("asks", "parameters"))
