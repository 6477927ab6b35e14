"""The users of the embedded engines: random secrets of one data folder, kept from start to start.

``credentials.json`` is the credential table that the servers read: hashes only. ``secrets.json``
holds the secrets themselves, for the programs of this user. Both have mode 0600.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepstream.common.login import Login
from stepstream.common.web import credentials
from stepstream.common.web.credentials import Credential, Credentials, CredentialsError, Scope
from stepstream.local.embedded.errors import LocalError

WRITER: Final = "default"
READER: Final = "reader"
KAFKA_USER: Final = "stepstream"
WRITER_SCOPES: Final[frozenset[Scope]] = frozenset({"read", "act", "admin", "ingest"})
READER_SCOPES: Final[frozenset[Scope]] = frozenset({"read"})
CREDENTIALS_FILE: Final = "credentials.json"
SECRETS_FILE: Final = "secrets.json"


@dataclass(frozen=True)
class Access:
    """The users of the engines of one data folder, and the file with the credential table."""

    writer: Login
    reader: Login
    kafka: Login
    file: Path


def prepare(folder: Path, *, writer_user: str = WRITER, writer_password: str = "") -> Access:
    """The users of a data folder, made at its first start.

    ``writer_password`` is one that an operator chose; empty: the random one of this folder. Entries
    that were added to the folder's credential table stay in it. Raises ``LocalError`` where the
    files cannot be used.
    """
    try:
        return _prepare(folder, writer_user, writer_password)
    except CredentialsError as error:
        raise LocalError(str(error)) from None


def _prepare(folder: Path, writer_user: str, writer_password: str) -> Access:
    if writer_user == READER:
        raise LocalError(
            f"clickhouse_user cannot be {READER!r} here: that is the user that reads; leave it "
            "unset"
        )
    secrets = _secrets(folder / SECRETS_FILE)
    reader, kafka = Login(READER, secrets["reader"]), Login(KAFKA_USER, secrets["kafka"])
    writer = Login(writer_user, writer_password or secrets["writer"])
    file = folder / CREDENTIALS_FILE
    before = credentials.load(file) if file.exists() else Credentials()
    table = before
    for login, scopes, chosen in (
        (writer, WRITER_SCOPES, bool(writer_password)),
        (reader, READER_SCOPES, False),
    ):
        table = _with(table, login, scopes, chosen)
    if writer_user != WRITER:
        table = table.without(WRITER)
    if list(table) != list(before):
        credentials.save(file, table)
    return Access(writer, reader, kafka, file)


def _with(table: Credentials, login: Login, scopes: frozenset[Scope], chosen: bool) -> Credentials:
    """The table with this login. Unchanged when it has the login: hashing a password takes time."""
    entry = table.get(login.user)
    if entry is not None and entry.scopes == scopes and not entry.projects:
        if (
            chosen
            and table.is_slow(login.user, login.password)
            and table.verify(login.user, login.password, client="", now_s=0)
        ):
            return table
        if not chosen and entry.hash == credentials.hash_token(login.password):
            return table
    hashed = (
        credentials.hash_password(login.password)
        if chosen
        else credentials.hash_token(login.password)
    )
    return table.with_entry(Credential(login.user, hashed, scopes))


def _secrets(file: Path) -> dict[str, str]:
    names = ("writer", "reader", "kafka")
    found: dict[str, str] = {}
    if file.exists():
        try:
            found = {
                name: str(value)
                for name, value in json.loads(file.read_text(encoding="utf-8")).items()
            }
        except (OSError, ValueError, AttributeError) as error:
            raise LocalError(
                f"{file} cannot be read ({error}); remove it, and new passwords are made"
            ) from None
    missing = [name for name in names if not found.get(name)]
    if missing:
        found |= {name: credentials.new_secret() for name in missing}
        credentials.write_private(file, json.dumps(found, indent=1))
    return found
