"""``stepstream topics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption, takes

if TYPE_CHECKING:
    from stepstream.admin.topics import TopicReport
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    topics = typer.Typer(no_args_is_help=True, help="Create and list the Kafka topics.")
    topics.command("create")(create)
    topics.command("list")(show)
    app.add_typer(topics, name="topics", rich_help_panel="Check and prepare")


@takes("kafka", "topics")
def create(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """Create missing topics, and list how existing topics differ from the settings.

    Safe to repeat: existing topics are not changed. If the steps topic has another number of
    partitions than the setting, the command explains how to change it and exits with code 1.
    """
    from stepstream.admin.topics import create_topics

    _print(create_topics(settings), format)


@takes("kafka", "topics")
def show(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """List the topics: whether each exists, and how it differs from the settings."""
    from stepstream.admin.topics import list_topics

    _print(list_topics(settings), format)


def _print(reports: Sequence[TopicReport], format: Format) -> None:
    rows = [
        (one.name, one.state, one.partitions, one.replicas, "; ".join(one.differences))
        for one in reports
    ]
    columns = ("topic", "state", "partitions", "replicas", "differences")
    print_rows(
        columns,
        rows,
        format,
        prose=("differences",),
        leave=("replicas", "partitions"),
        keep=("state", "differences"),
    )
    # After the table: the other topics were created, and the reader has to know which.
    if refused := [one.refused for one in reports if one.refused]:
        raise errors.Failure("\n".join(refused))
