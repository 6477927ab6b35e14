"""``stepstream import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.admin.imports import Plan
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("import", rich_help_panel="Data")(import_files)


@takes("kafka", settings=("project", "environment", "max_content_bytes", "content_limits",
                          "capture_content",
                          "capture",
                          "capture_sample",
                          "redact_hook",
                          "user_id_key",
                          "steps_retention_days", "retention_by_project"))  # fmt: skip
def import_files(
    settings: Settings,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="JSON files, one value or one a line."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be imported; send nothing.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Send what an earlier import has sent, too.")
    ] = False,
) -> None:
    """Import history: OTLP JSON files, exports of Langfuse and Phoenix, OpenAI message lists.

    The format is recognised. Times are the original ones; steps older than their retention are
    refused, which is shown before anything is sent. An import that was interrupted continues where
    it stopped, and importing a file twice adds nothing.
    """
    from stepstream.admin.imports import Import, now_us
    from stepstream.common.settings import require_kafka

    if not dry_run:
        require_kafka(settings)
    for file in files:
        try:
            job = Import(settings, file, project=settings.project, now_us=now_us())
            if restart:
                job.forget()
            plan = job.plan()
        except OSError as error:
            raise errors.Failure(f"{file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise errors.Failure(f"{file} cannot be imported: {error}") from None
        # Shown before anything is sent: steps that retention refuses cannot be added later.
        _show(plan)
        if dry_run:
            continue
        sent = job.send(plan, lambda done, plan=plan: remark(f"{done} of {plan.steps} steps"))  # type: ignore[misc]
        echo(f"{file}: {sent} steps imported")


def _show(plan: Plan) -> None:
    """What a file holds and what will be refused."""
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(plan.formats.items()))
    echo(f"{plan.file}: {kinds}; {plan.spans} spans, {plan.steps} steps")
    if plan.done:
        echo(f"  {plan.done} steps were imported before and are not sent again")
    for reason, count in sorted(plan.refused.items()):
        echo(f"  {count} spans are refused ({reason}): {plan.example}")
