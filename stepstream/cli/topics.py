"""``stepstream topics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from stepstream.cli import errors
from stepstream.cli.common import KAFKA, Format, FormatOption, print_rows, takes

if TYPE_CHECKING:
    from stepstream.admin.topics import TopicReport
    from stepstream.schemas.settings import Settings

SIZES = (
    "partitions",
    "fleet_partitions",
    "replication_factor",
    "min_insync_replicas",
    "steps_topic_retention",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    topics = typer.Typer(no_args_is_help=True, help="Create and list the Kafka topics.")
    topics.command("create")(create)
    topics.command("list")(show)
    app.add_typer(topics, name="topics", rich_help_panel="Check and prepare")


@takes(*KAFKA, *SIZES)
def create(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """Create the topics that are missing, and say what differs in those that exist.

    Safe to repeat. Nothing that exists is changed: where the partition count of the steps topic is another one than the
    setting's, the way to get there is explained and the exit code is 1.
    """
    from stepstream.admin.topics import create_topics

    _print(create_topics(settings), format)


@takes(*KAFKA, *SIZES)
def show(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """List the topics: whether they exist, and what differs from the settings."""
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
    if refused := [one.refused for one in reports if one.refused]:
        raise errors.Failure("\n".join(refused))
