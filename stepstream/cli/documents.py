"""``stepstream apply``, ``get`` and ``delete``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.admin.documents import Change, StoredDocument, Written
    from stepstream.schemas.settings import Settings

PANEL = "Policies, subscriptions, prices"
KindArgument = Annotated[
    str, typer.Argument(metavar="KIND", help="policy, subscription or prices, or KIND/NAME.")
]


def register(app: typer.Typer) -> None:
    # Accepts arguments without -f, so that the error can show the right form.
    app.command("apply", rich_help_panel=PANEL, context_settings={"allow_extra_args": True})(apply)
    app.command("get", rich_help_panel=PANEL)(get)
    app.command("delete", rich_help_panel=PANEL)(delete)


@takes("kafka")
def apply(
    settings: Settings,
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--file",
            metavar="PATH",
            help="A YAML or JSON file, or a directory of them. May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace documents that a watched directory owns.")
    ] = False,
) -> None:
    """Check documents and apply them.

    All files are checked first. If there is any problem, all problems are printed with their lines
    and nothing is applied.
    """
    from stepstream.admin import documents
    from stepstream.cli.subscriptions import warn_of_variables
    from stepstream.schemas.documents import Subscription

    if context.args or not files:
        given = context.args[0] if context.args else "FILE"
        raise errors.Failure(f"give files with -f: stepstream apply -f {given}", errors.USAGE)
    written = read_all(files, "nothing was applied, because of")
    changes = documents.apply(settings, written, dry_run=dry_run, force=force)
    for change in changes:
        echo(f"{change.key} {_outcome(change, dry_run)}")
    # After applying: the notifier's environment may differ from this one, so it is no error.
    for one in written:
        if isinstance(one.document, Subscription):
            warn_of_variables(settings, one.document)
    if not changes:
        raise errors.Failure(
            f"no documents in {', '.join(map(str, files))}: files end in .yaml, .yml or .json"
        )


def read_all(paths: Sequence[Path], refused: str) -> list[Written]:
    """The documents of all paths.

    Raises ``Failure`` with every problem of every path, behind the words ``refused``.
    """
    from stepstream.admin.documents import DocumentsError, read_documents

    try:
        return read_documents(*paths)
    except DocumentsError as error:
        raise errors.Failure(f"{refused}\n{error}") from None


def _outcome(change: Change, dry_run: bool) -> str:
    return f"would be {change.what}" if dry_run and change.what != "unchanged" else change.what


@takes("kafka")
def get(
    settings: Settings,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND]",
            help="policy, subscription or prices, or KIND/NAME. Default: all.",
        ),
    ] = "",
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Name of the document to print in full.")
    ] = "",
    revisions: Annotated[
        bool, typer.Option("--revisions", help="List the revisions of a policy, the newest first.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show the documents that are in force: a list, or one document as YAML.

    Every revision of a policy is kept: `stepstream get policy NAME --revisions` lists them, and
    `stepstream get policy NAME@3` shows one.
    """
    from stepstream.admin import documents

    kind, name = _split(kind, name)
    if revisions:
        _print_revisions(settings, kind, name, format)
        return
    if documents.REVISION_MARK in name:
        _show(_one(documents.stored(settings), kind, name), format)
        return
    stored = documents.in_force(settings)
    if name:
        _show(_one(stored, kind, name), format)
        return
    wanted = _prefix(kind) if kind else ""
    rows = [_row(record) for key, record in stored.items() if key.startswith(wanted)]
    empty = f"no {kind or 'documents'} in force; `stepstream apply -f FILE` applies some"
    print_rows(("kind", "name", "applied_at", "owner", "revision"), rows, format, empty=empty)


def _row(record: StoredDocument) -> tuple[Any, ...]:
    return (
        record.kind,
        record.name,
        datetime.fromtimestamp(record.timestamp_ms / 1000, UTC),
        record.owned_by,
        record.revision or None,
    )


def _print_revisions(settings: Settings, kind: str, name: str, format: Format) -> None:
    from stepstream.admin import documents

    if not name:
        raise errors.Failure(
            "name the policy: stepstream get policy NAME --revisions", errors.USAGE
        )
    key = f"{_prefix(kind)}{name}"
    rows = [_row(record) for record in documents.revisions(settings, key)]
    columns = ("kind", "name", "applied_at", "owner", "revision")
    print_rows(columns, rows, format, empty=f"there is no revision of {key}")


def _show(record: StoredDocument, format: Format) -> None:
    from stepstream.admin import documents

    if format is Format.CSV:
        raise errors.Failure(
            "a document cannot be printed as CSV: use --format json, or no --format for YAML",
            errors.USAGE,
        )
    if format is Format.JSON:
        print_json(documents.to_data(record))
    else:
        echo(documents.to_yaml(record).rstrip("\n"))


@takes("kafka")
def delete(
    settings: Settings,
    kind: KindArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the document.")] = "",
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also delete a document that a watched directory owns.")
    ] = False,
) -> None:
    """Delete a document."""
    from stepstream.admin import documents

    kind, name = _split(kind, name)
    if not name:
        raise errors.Failure("name the document: stepstream delete KIND NAME", errors.USAGE)
    record = _one(documents.in_force(settings), kind, name)
    # Its owner, a watched directory, would write it again at once.
    if record.owner and not force:
        raise errors.Failure(
            f"{record.key} is owned by {record.owned_by}: remove it there, or use --force"
        )
    documents.withdraw(settings, record.key)
    echo(f"{record.key} deleted")


def _split(kind: str, name: str) -> tuple[str, str]:
    """Kind and name; ``kind`` may be both, as `apply` prints them: ``policy/support``."""
    if name:
        return kind, name
    first, _, rest = kind.partition("/")
    return first, rest


def _prefix(kind: str) -> str:
    """The key prefix of a kind; ``kind`` may be in the plural."""
    from stepstream.admin.documents import KINDS

    words = {known.lower(): known.lower() for known in KINDS}
    words |= {"policies": "policy", "subscriptions": "subscription", "price": "prices"}
    found = words.get(kind.lower())
    if found is None:
        from stepstream.schemas.suggestions import did_you_mean

        hint = did_you_mean(kind.lower(), ["policy", "subscription", "prices"])
        raise errors.Failure(f"{kind} is not a kind of document; {hint}", errors.USAGE)
    return f"{found}/"


def _one(stored: dict[str, StoredDocument], kind: str, name: str) -> StoredDocument:
    prefix = _prefix(kind)
    if (key := prefix + name) in stored:
        return stored[key]
    from stepstream.schemas.suggestions import did_you_mean

    names = [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]
    raise errors.Failure(f"there is no {prefix}{name}; {did_you_mean(name, names)}")
