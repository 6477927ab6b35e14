"""``stepstream keys``: the gateway's keys, which are entries of the one credential table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_rows
from stepstream.cli.credentials import FILE_SETTINGS, NameArgument, table_of
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.common.web.credentials import Credential, Credentials
    from stepstream.schemas.settings import Settings

HELP = "Make, list, rotate and remove the keys of the gateway."


def register(app: typer.Typer) -> None:
    keys = typer.Typer(no_args_is_help=True, help=HELP)
    keys.command("create")(create)
    keys.command("list")(show)
    keys.command("rotate")(rotate)
    keys.command("remove")(remove)
    app.add_typer(keys, name="keys", rich_help_panel="Check and prepare")


@takes(settings=FILE_SETTINGS)
def create(
    settings: Settings,
    project: Annotated[
        list[str],
        typer.Argument(metavar="PROJECT...", help="What the key may send for."),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="Its name; otherwise made from the first project's."
        ),
    ] = "",
    act: Annotated[
        bool, typer.Option("--act", help="The key may stop, pause and resume runs too.")
    ] = False,
    releases: Annotated[
        bool,
        typer.Option("--releases", help="The key may read releases too: those of every agent."),
    ] = False,
) -> None:
    """Make a key that may send for the projects, and print it, once: only a hash of it is kept.

    A running gateway takes it within seconds.
    """
    from stepstream.common.web.credentials import (
        CredentialsError,
        Scope,
        new_credential,
        save,
        token_of,
    )

    file, table = table_of(settings)
    wanted = name or _free_name(table, _plain(project[0]))
    if table.get(wanted) is not None:
        raise errors.Failure(f"there is a {wanted} already: `stepstream keys rotate {wanted}`")
    scopes: list[Scope] = ["ingest"]
    if act:
        scopes.append("act")
    if releases:
        scopes.append("releases")
    try:
        entry, secret = new_credential(wanted, scopes, project)
    except CredentialsError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    save(file, table.with_entry(entry))
    echo(token_of(wanted, secret))
    remark(f"written to {file} as {wanted}")


@takes(settings=FILE_SETTINGS)
def show(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """List the keys and the projects that each may send for."""
    _, table = table_of(settings)
    rows = [
        (one.name, ", ".join(sorted(one.projects)) or "all", ", ".join(sorted(one.scopes)))
        for one in table
        # The file also has the users of the notifier, which `stepstream credentials` manages.
        if "ingest" in one.scopes
    ]
    print_rows(("name", "projects", "scopes"), rows, format)


@takes(settings=FILE_SETTINGS)
def rotate(
    settings: Settings,
    name: NameArgument,
    now: Annotated[
        bool, typer.Option("--now", help="Remove the old key at once instead of keeping it.")
    ] = False,
) -> None:
    """Make a key with the projects and scopes of another one, and print it.

    The old one stays valid until `stepstream keys remove`, so that senders can be changed one by
    one.
    """
    from stepstream.common.web.credentials import new_credential, save, token_of

    file, table = table_of(settings)
    old = _key(table, name)
    # `web-2` is rotated to `web-3`, not to `web-2-2`.
    fresh = _free_name(table, re.sub(r"-\d+$", "", name))
    entry, secret = new_credential(fresh, old.scopes, old.projects)
    table = table.with_entry(entry)
    save(file, table.without(name) if now else table)
    echo(token_of(fresh, secret))
    left = "is removed" if now else f"stays valid until `stepstream keys remove {name}`"
    remark(f"written to {file} as {fresh}; {name} {left}")


@takes(settings=FILE_SETTINGS)
def remove(settings: Settings, name: NameArgument) -> None:
    """Take a key out of the file: a running gateway refuses it within seconds."""
    from stepstream.common.web.credentials import save

    file, table = table_of(settings)
    _key(table, name)
    save(file, table.without(name))
    echo(f"{name} is removed from {file}")


def _key(table: Credentials, name: str) -> Credential:
    found = table.get(name)
    if found is None or "ingest" not in found.scopes:
        raise errors.Failure(f"there is no key {name}: `stepstream keys list` names them")
    return found


def _plain(project: str) -> str:
    """A project's name in the letters that a key's name may have."""
    # 56 characters leave room for a number at the end: a name has at most 64.
    return re.sub(r"[^a-z0-9_-]+", "-", project.lower()).strip("-_")[:56] or "key"


def _free_name(table: Credentials, wanted: str) -> str:
    """The name, or the first of ``wanted-2``, ``wanted-3`` ... that no entry has."""
    number = 1
    name = wanted
    while table.get(name) is not None:
        number += 1
        name = f"{wanted}-{number}"
    return name
