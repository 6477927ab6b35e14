"""``stepstream build``: a release from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.release import Release
    from stepstream.schemas.settings import Settings

PANEL = "Releases"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build", rich_help_panel=PANEL)(build)


@takes("kafka")
def build(
    settings: Settings,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Directory with a release.yaml, or that file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="File to write the release to."),
    ] = None,
    *,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish", help="Publish the release to Kafka. A published version cannot be changed."
        ),
    ] = False,
    version: Annotated[
        str,
        typer.Option(
            "--version", metavar="NAME", help="Version, instead of the one in release.yaml."
        ),
    ] = "",
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", metavar="TEXT", help="Source revision. Default: the commit of git."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the release as JSON instead of a summary.")
    ] = False,
) -> None:
    """Build a release from a directory of prompts and tools, and check it.

    Nothing is sent without --publish. Every problem is printed with its file and line; the exit
    code is then 1. Equal content always gives the same hash.
    """
    from stepstream.releases.folder import BuildError
    from stepstream.releases.folder import build as built

    try:
        release = built(path, version=version, revision=revision)
    except BuildError as error:
        raise errors.Failure(f"nothing was built, because of\n{error}") from None
    if as_json:
        print_json(release.model_dump(mode="json"))
    else:
        _print(release)
    if output is not None:
        _write(output, release)
    if publish:
        _publish(settings, release)
    # Without this line the summary would read as if the release were published.
    elif output is None:
        remark("nothing was published: use --publish, or -o FILE")


def _print(release: Release) -> None:
    prompts = ", ".join(release.prompts) or "none"
    tools = ", ".join(tool.name for tool in release.tools) or "none"
    echo(f"{release.title}  {release.short_hash}")
    echo(f"  prompts: {prompts}")
    echo(f"  tools:   {tools}")
    if release.source.revision:
        changed = " with changes" if release.source.changed else ""
        # Uncommitted changes are named: the release cannot be built again from the commit alone.
        echo(f"  source:  {release.source.revision[:12]}{changed}")


def _write(file: Path, release: Release) -> None:
    from stepstream.schemas.release import encode_release

    try:
        file.write_bytes(encode_release(release) + b"\n")
    except OSError as error:
        raise errors.Failure(f"{file} cannot be written: {error.strerror}") from None
    remark(f"written to {file}")


def _publish(settings: Settings, release: Release) -> None:
    from stepstream.common.settings import require_kafka
    from stepstream.releases.topic import ReleaseConflict, publish

    require_kafka(settings)
    try:
        outcome = publish(settings, release)
    except ReleaseConflict as error:
        raise errors.Failure(str(error)) from None
    remark(
        f"{release.title} {'is published' if outcome == 'published' else 'was published before'}"
    )
