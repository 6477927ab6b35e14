"""The credential table: who may call a server, with which secret and which scopes.

A secret is either a random token that we made (``new_credential``) or a password that an operator
chose. A token has 256 random bits, so one SHA-256 protects it; passwords are hashed with scrypt.
The table contains hashes only. It is stored in a JSON file (``load``, ``save``); everything else
here is pure, and the time is passed in.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

Scope = Literal["read", "act", "admin", "ingest", "releases"]
SCOPES: Final[dict[Scope, str]] = {
    "read": "read runs, steps, alerts and metrics, with SQL too",
    "act": "acknowledge, silence and resolve alerts, stop and pause runs",
    "admin": "change policies and subscriptions, write, migrate and back up the store, "
    "and manage credentials",
    "ingest": "send steps",
    "releases": "read releases: the prompts and tools of every agent",
}
"""What each scope allows. No scope includes another one."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
TOKEN_PREFIX: Final = "stepstream_"
VERSION: Final = 1
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
"""Parameters of scrypt: 16 MiB of memory and about 50 ms for one password."""
SECRET_BYTES: Final = 32
MAX_SECRET_CHARACTERS: Final = 1024
FREE_TRIES: Final = 10
TRIES_PER_SECOND: Final = 1.0
MAX_CLIENTS: Final = 10_000
MAX_VERIFIED: Final = 1_000


class CredentialsError(ValueError):
    """A credential file or an entry of it is invalid; the text names it and the reason."""


class TooManyTries(Exception):
    """A client address has failed too often. It may try again after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            f"too many failed tries from this address; try again in {retry_after_s:.0f} s"
        )
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Credential:
    """One entry: a name, the hash of its secret, its scopes, and its projects (empty: all)."""

    name: str
    hash: str
    scopes: frozenset[Scope]
    projects: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise CredentialsError(
                f"{self.name!r} is not a credential's name: use a-z, 0-9, _ and -, "
                f"at most 64 characters"
            )
        unknown = sorted(set(self.scopes) - SCOPES.keys())
        if unknown:
            raise CredentialsError(
                f"{unknown[0]!r} (credential {self.name}) is not a scope: use {', '.join(SCOPES)}"
            )
        if not _is_hash(self.hash):
            raise CredentialsError(
                f"the hash of credential {self.name} is neither sha256:HEX nor "
                f"scrypt:N:R:P:SALT:HEX"
            )

    def allows(self, scope: Scope, project: str | None = None) -> bool:
        """Whether it has the scope for that project, or, without one, for all projects."""
        if scope not in self.scopes:
            return False
        return not self.projects or (project is not None and project in self.projects)


def new_secret() -> str:
    """A random secret of 256 bits, as hexadecimal digits, which need no quoting anywhere."""
    return secrets.token_hex(SECRET_BYTES)


def new_credential(
    name: str, scopes: Iterable[Scope], projects: Iterable[str] = ()
) -> tuple[Credential, str]:
    """An entry with a new random secret, and the secret. Raises ``CredentialsError``."""
    secret = new_secret()
    return Credential(name, hash_token(secret), frozenset(scopes), frozenset(projects)), secret


def hash_token(secret: str) -> str:
    """The hash of a secret from ``new_secret``. For passwords use ``hash_password``."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def hash_password(password: str) -> str:
    """The salted scrypt hash of a password. Raises ``CredentialsError`` for its length."""
    if not 0 < len(password) <= MAX_SECRET_CHARACTERS:
        raise CredentialsError(f"a password has 1 to {MAX_SECRET_CHARACTERS} characters")
    salt = secrets.token_hex(16)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}:{salt}:{digest}"


def token_of(name: str, secret: str) -> str:
    """Name and secret as a token, for ``Authorization: Bearer`` and ``x-api-key``."""
    return f"{TOKEN_PREFIX}{name}.{secret}"


def split_token(token: str) -> tuple[str, str] | None:
    """The name and the secret of a token; None if the text is not a token."""
    name, dot, secret = token.strip().removeprefix(TOKEN_PREFIX).partition(".")
    if (
        not token.strip().startswith(TOKEN_PREFIX)
        or not dot
        or not secret
        or not NAME.fullmatch(name)
    ):
        return None
    return name, secret


class Credentials:
    """The table, and the check of a name and a secret against it. Thread-safe.

    A check against a token's hash takes microseconds. The first check against a password's hash
    takes about 50 ms (``is_slow``), so call it outside an event loop. Correct pairs are kept in
    memory as keyed hashes.
    """

    def __init__(self, entries: Iterable[Credential] = ()) -> None:
        self._entries: dict[str, Credential] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise CredentialsError(f"credential {entry.name} exists twice")
            self._entries[entry.name] = entry
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._failures = _Failures()
        self._guard = threading.Lock()
        self._slowly = threading.Lock()  # one scrypt at a time: each takes 16 MiB

    def __iter__(self) -> Iterator[Credential]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> Credential | None:
        """The entry of that name, or None."""
        return self._entries.get(name)

    def with_entry(self, entry: Credential) -> Credentials:
        """A table with this entry; it replaces one of the same name."""
        return Credentials([*(one for one in self if one.name != entry.name), entry])

    def without(self, name: str) -> Credentials:
        """A table without that entry."""
        return Credentials(one for one in self if one.name != name)

    def is_slow(self, name: str, secret: str) -> bool:
        """Whether ``verify`` has to compute a password's hash for this pair."""
        entry = self._entries.get(name)
        return (
            entry is not None
            and entry.hash.startswith("scrypt:")
            and not self._is_verified(self._mark(entry, secret))
        )

    def verify(self, name: str, secret: str, *, client: str, now_s: float) -> Credential | None:
        """The entry with this name and secret; None if they are wrong.

        ``client`` is the address of the client, ``now_s`` a monotonic time in seconds. Raises
        ``TooManyTries`` in place of None for an address that keeps failing, and computes no
        password's hash for it. A correct token, and a correct password that was verified before, is
        accepted from every address at any time: failing does not lock others out.
        """
        entry = self._entries.get(name)
        # The cost of hashing grows with the length.
        if len(secret) > MAX_SECRET_CHARACTERS:
            entry = None
        if entry is not None and self._matches(entry, secret, client, now_s):
            return entry
        with self._guard:
            wait_s = self._failures.add(client, now_s)
        if wait_s > 0:
            raise TooManyTries(wait_s)
        return None

    # Both comparisons take the same time for every wrong secret.

    def _matches(self, entry: Credential, secret: str, client: str, now_s: float) -> bool:
        if entry.hash.startswith("sha256:"):
            return hmac.compare_digest(entry.hash, hash_token(secret))
        mark = self._mark(entry, secret)
        if self._is_verified(mark):
            return True
        with self._slowly:
            if self._is_verified(mark):  # by another thread since
                return True
            with self._guard:
                wait_s = self._failures.wait_s(client, now_s)
            if wait_s > 0:
                raise TooManyTries(wait_s)
            if not _password_matches(entry.hash, secret):
                return False
        with self._guard:
            self._verified[mark] = None
            if len(self._verified) > MAX_VERIFIED:
                self._verified.popitem(last=False)
        return True

    def _mark(self, entry: Credential, secret: str) -> bytes:
        """The keyed hash that is kept of a correct pair; useless outside this process."""
        return hmac.digest(self._key, f"{entry.name}\0{entry.hash}\0{secret}".encode(), "sha256")

    def _is_verified(self, mark: bytes) -> bool:
        with self._guard:
            return mark in self._verified


class _Failures:
    """Limits failures by address: ``FREE_TRIES`` at once, then ``TRIES_PER_SECOND``."""

    def __init__(self) -> None:
        self._by_network: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By address: tries left, and when that was computed. At most ``MAX_CLIENTS``."""

    def wait_s(self, client: str, now_s: float) -> float:
        """Seconds until the address may try again; 0: now."""
        left = self._left(_network(client), now_s)
        return 0.0 if left >= 1 else (1 - left) / TRIES_PER_SECOND

    def add(self, client: str, now_s: float) -> float:
        """Count a failed try. Returns the seconds to wait if none was left, else 0."""
        network = _network(client)
        wait_s = self.wait_s(client, now_s)
        self._by_network[network] = (
            max(0.0, self._left(network, now_s) - (1 if wait_s == 0 else 0)),
            now_s,
        )
        self._by_network.move_to_end(network)
        if len(self._by_network) > MAX_CLIENTS:
            self._by_network.popitem(last=False)
        return wait_s

    def _left(self, network: str, now_s: float) -> float:
        left, then_s = self._by_network.get(network, (float(FREE_TRIES), now_s))
        return min(float(FREE_TRIES), left + max(0.0, now_s - then_s) * TRIES_PER_SECOND)


def _network(client: str) -> str:
    """The address; of IPv6 the /64 network, because one machine usually has all of it."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(client)
        if address.version == 6:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return client[:64]


def _is_hash(text: str) -> bool:
    if re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        return True
    match = re.fullmatch(
        r"scrypt:([1-9][0-9]{1,6}):([1-9][0-9]?):([1-9][0-9]?):[0-9a-f]{32}:[0-9a-f]{64}", text
    )
    return match is not None and int(match[1]).bit_count() == 1


def _password_matches(stored: str, password: str) -> bool:
    _, n, r, p, salt, digest = stored.split(":")
    return hmac.compare_digest(_scrypt(password, salt, int(n), int(r), int(p)), digest)


def _scrypt(password: str, salt: str, n: int, r: int, p: int) -> str:
    # scrypt needs 128 r (n + p) bytes (RFC 7914); OpenSSL refuses more than maxmem.
    memory = 128 * r * (n + p) + (1 << 20)
    return hashlib.scrypt(
        password.encode(), salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=memory, dklen=32
    ).hex()


def load(path: Path) -> Credentials:
    """The table of a file. Raises ``CredentialsError``, which names the file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            raise CredentialsError(
                f"version {stored['version']}, and this release reads version {VERSION}"
            )
        return Credentials(_entry(one) for one in stored["credentials"])
    except OSError as error:
        raise CredentialsError(
            f"the credential file {path} cannot be read: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(
            f"the credential file {path} cannot be used: {error or type(error).__name__}"
        ) from None


def load_or_none(file: str) -> Credentials:
    """The table of a setting's file; an empty table, which accepts no caller, without a file.

    Raises as ``load`` does.
    """
    return load(Path(file).expanduser()) if file else Credentials()


def _entry(fields: dict[str, object]) -> Credential:
    name, stored, scopes, projects = (fields[key] for key in ("name", "hash", "scopes", "projects"))
    if not isinstance(name, str) or not isinstance(stored, str):
        raise CredentialsError("name and hash of a credential have to be texts")
    granted: frozenset[Any] = frozenset(_texts(name, scopes))
    return Credential(name, stored, granted, frozenset(_texts(name, projects)))


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise CredentialsError(
            f"scopes and projects of credential {name} have to be lists of texts"
        )
    return value


def save(path: Path, table: Credentials) -> None:
    """Write the table atomically, readable by this user only."""
    stored = [
        {
            "name": one.name,
            "hash": one.hash,
            "scopes": sorted(one.scopes),
            "projects": sorted(one.projects),
        }
        for one in table
    ]
    write_private(path, json.dumps({"version": VERSION, "credentials": stored}, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A new file with the right mode, moved over the old one: no reader sees half of it.
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


assert set(get_args(Scope)) == SCOPES.keys()
