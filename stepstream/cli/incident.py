"""``stepstream incident``: runs saved as tests of policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.documents import PANEL
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.backtest.saved_run import SavedRun
    from stepstream.schemas.settings import Settings

HELP = "Save runs as tests of policies."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    incident = typer.Typer(no_args_is_help=True, help=HELP)
    incident.command("save")(save)
    app.add_typer(incident, name="incident", rich_help_panel=PANEL)


@takes("clickhouse", settings=["recordings"])
def save(
    settings: Settings,
    run: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, or a unique beginning.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="File to write. Default: NAME.json."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Default: made from agent and run.")
    ] = "",
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Save a run and the alerts about it as a file for `stepstream policy test`.

    Known forms of secrets are replaced in every text, and so are attributes whose name is that of
    a secret; everything else is in the file as it was recorded. Edit `expect` in the file where
    other alerts should be raised. Where the calls of the run were recorded, the recording goes into
    the file as well, for `stepstream eval replay`.
    """
    from stepstream.backtest.saved_run import SavedRunError, saved_run_of
    from stepstream.cli import queries

    with queries.store(settings) as client:
        trace_id = queries.find_run(client, run)
        steps = queries.records(client, "SELECT * FROM trace(id = {id:String})", {"id": trace_id})
        raised = queries.records(
            client,
            "SELECT alert, subject FROM alerts WHERE trace_id = {id:String}",
            {"id": trace_id},
        )
    agent = next((step["agent"] for step in steps if step["agent"]), "run")
    recording = _recording(settings.recordings, trace_id)
    try:
        saved = saved_run_of(
            steps, raised, name or _file_name(f"{agent}-{trace_id[:8]}"), recording
        )
    except SavedRunError as error:
        raise errors.Failure(str(error)) from None
    file = output or Path(f"{saved.name}.json")
    _write(file, saved, force)
    alerts = ", ".join(one.alert for one in saved.expect) or "no alert"
    with_calls = "" if recording is None else ", with its recording"
    echo(f"{file}: {len(steps)} steps{with_calls}; expected: {alerts}")


def _recording(folder: str, trace_id: str) -> Sequence[dict[str, Any]] | None:
    """The lines of the run's recording; None if there is no usable one."""
    from stepstream.schemas.recording import RecordingError
    from stepstream.suites.replay import find_recording, read_recording

    if not folder:
        return None
    try:
        return read_recording(find_recording(folder, trace_id)).lines
    except RecordingError as error:
        remark(f"saved without a recording: {error}")
        return None


def _file_name(text: str) -> str:
    # The name is also that of a document: lower case, beginning with a letter or a digit.
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in text.lower())
    return kept.lstrip("_.-") or "run"


def _write(file: Path, saved: SavedRun, force: bool) -> None:
    try:
        # "x" fails for an existing file itself: between a check and the write it could be created.
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(saved.model_dump_json(indent=1, exclude_none=True) + "\n")
    except FileExistsError:
        raise errors.Failure(f"{file} exists: choose another --output, or use --force") from None
    except OSError as error:
        raise errors.Failure(f"{file} cannot be written: {error.strerror}") from None
