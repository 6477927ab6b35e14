"""``stepstream eval import`` and ``add``: cases out of other tools' files and of recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.files import read_text
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.evals.cases import Case
    from stepstream.schemas.settings import Settings

OutputOption = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="SUITE", help="File with one case a line, appended to."),
]


@takes()
def import_cases(
    settings: Settings,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="JSON, JSON lines or YAML.")
    ],
    output: OutputOption,
) -> None:
    """Make cases of the files of other tools.

    Known are Inspect, OpenAI evals, LangSmith, Braintrust, Langfuse and promptfoo; the format is
    recognised. Assertions that have no check here are named and left out.
    """
    from stepstream.evals.cases import CasesError
    from stepstream.evals.importers import cases_from

    try:
        found = [(file, cases_from(str(file), read_text(file))) for file in files]
    except CasesError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    _append(output, [case for _, imported in found for case in imported.cases])
    for file, imported in found:
        formats = ", ".join(f"{n} of {name}" for name, n in imported.formats.most_common())
        echo(f"{file}: {len(imported.cases)} cases: {formats}")
        if imported.left_out:
            left = ", ".join(f"{name} ({n})" for name, n in imported.left_out.most_common())
            remark(f"{file}: left out, because there is no such check: {left}")
        if imported.undecided:
            remark(
                f"{file}: {imported.undecided} cases have nothing that decides whether they "
                "succeed: run them with -c and a Criteria document"
            )


@takes("clickhouse")
def add(
    settings: Settings,
    run: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, or a unique beginning.")],
    output: OutputOption,
    expected: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A text that the answer must contain.")
    ] = None,
) -> None:
    """Make a case of a recorded run: its input, and the tools that it called.

    Without --expected the case requires that these tools are called again and that the run ends
    well; edit its checks where something else is success. Known forms of secrets are replaced.
    """
    from stepstream.cli import queries
    from stepstream.evals.from_runs import RunLost, case_of_run

    with queries.store(settings) as client:
        trace_id = queries.find_run(client, run)
        steps = queries.records(client, "SELECT * FROM trace(id = {id:String})", {"id": trace_id})
    try:
        case = case_of_run(trace_id, steps, expected)
    except RunLost as error:
        raise errors.Failure(str(error)) from None
    _append(output, [case])
    echo(f"{output}: {case.id}: {json.dumps(case.input)[:120]}")


def _append(file: Path, cases: list[Case]) -> None:
    """Add cases to a suite. Raises ``errors.Failure`` for an id that it has already."""
    from stepstream.evals.cases import CasesError
    from stepstream.evals.importers import case_line, cases_from

    known: set[str] = set()
    before = read_text(file) if file.exists() else ""
    if before.strip():
        try:
            known = {case.id for case in cases_from(str(file), before).cases}
        except CasesError as error:
            raise errors.Failure(f"{file} is not a suite: {error}", errors.USAGE) from None
    seen: dict[str, Any] = {}
    for case in cases:
        if case.id in known or case.id in seen:
            where = f"{file} has" if case.id in known else "two records have"
            raise errors.Failure(f"{where} the id {case.id!r} already; nothing was written")
        seen[case.id] = case
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        if before and not before.endswith("\n"):
            out.write("\n")
        out.writelines(f"{case_line(case)}\n" for case in cases)
