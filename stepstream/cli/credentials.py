"""``stepstream credentials``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

FILE_SETTINGS = ("credentials_file", "state_dir", "data_dir")
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the user: a-z, 0-9, _ and -.")
]


def register(app: typer.Typer) -> None:
    credentials = typer.Typer(
        no_args_is_help=True,
        help="Add, list and remove users of the notifier's admin API and alert stream.",
    )
    credentials.command("add")(add)
    credentials.command("list")(show)
    credentials.command("remove")(remove)
    credentials.command("token")(token)
    app.add_typer(credentials, name="credentials", rich_help_panel="Check and prepare")


@takes(settings=FILE_SETTINGS)
def add(
    settings: Settings,
    name: NameArgument,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", metavar="SCOPE", help="read, act, admin or ingest. May be repeated."
        ),
    ],
    project: Annotated[
        list[str] | None,
        typer.Option("--project", metavar="NAME", help="Only for this project. May be repeated."),
    ] = None,
) -> None:
    """Add a user with a random secret, and print its token.

    The token is printed only this once: the file has a hash of it. The file is credentials_file, by
    default that of the `stepstream up` of this state directory. An entry with the same name is
    replaced. Servers read the file when they start.
    """
    from stepstream.common.web.credentials import CredentialsError, new_credential, save, token_of

    # The secret is not in the file, only its hash: it can be printed only now.
    file, table = table_of(settings)
    scopes: Any = scope
    try:
        entry, secret = new_credential(name, scopes, project or ())
    except CredentialsError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    save(file, table.with_entry(entry))
    echo(token_of(name, secret))
    remark(f"written to {file}; running processes read it at their next start")


@takes(settings=FILE_SETTINGS)
def show(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """List the users in the file, and the scopes and projects of each."""
    _, table = table_of(settings)
    rows = [
        (one.name, ", ".join(sorted(one.scopes)), ", ".join(sorted(one.projects)) or "all")
        for one in table
    ]
    print_rows(("name", "scopes", "projects"), rows, format)


@takes(settings=FILE_SETTINGS)
def remove(settings: Settings, name: NameArgument) -> None:
    """Remove a user from the file."""
    from stepstream.common.web.credentials import save

    file, table = table_of(settings)
    if table.get(name) is None:
        raise errors.Failure(
            f"there is no user {name} in {file}; `stepstream credentials list` shows them"
        )
    save(file, table.without(name))
    echo(f"removed {name} from {file}; running processes read it at their next start")


@takes(settings=["notify_token", "state_dir"])
def token(settings: Settings) -> None:
    """Print the token for the admin API and the alert stream.

    It is notify_token, or the token of the running `stepstream up`. For scripts of this user:
    curl -H "Authorization: Bearer $(stepstream credentials token)" ... It has all scopes; create
    tokens with fewer by `stepstream credentials add`.
    """
    found = settings.notify_token.get_secret_value()
    if not found:
        raise errors.Failure(
            "no token is known: start `stepstream up`, or set STEPSTREAM_NOTIFY_TOKEN"
        )
    echo(found)


def table_of(settings: Settings) -> tuple[Path, Any]:
    """The path of the file and its users; no users where the file does not exist."""
    from stepstream.common.settings import data_dir
    from stepstream.common.web.credentials import Credentials, CredentialsError, load
    from stepstream.local.embedded.access import CREDENTIALS_FILE

    # Without the setting, the file of the embedded store: its users are the same ones.
    given = settings.credentials_file
    file = Path(given).expanduser() if given else data_dir(settings) / CREDENTIALS_FILE
    try:
        return file, load(file) if file.exists() else Credentials()
    except CredentialsError as error:
        raise errors.Failure(str(error)) from None
