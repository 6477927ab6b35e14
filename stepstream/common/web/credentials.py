"""The credential table: who may call a server, with which secret, and what that allows.

A secret is either a random token that we made (``new_credential``), or a password that an operator chose. Tokens have 256
random bits, so one SHA-256 protects them; passwords are hashed with scrypt. The table holds hashes only. It lives in a
JSON file (``load``, ``save``); everything else here is pure, and the time is passed in.
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

Scope = Literal["read", "act", "admin", "ingest"]
SCOPES: Final[dict[Scope, str]] = {
    "read": "read runs, steps, alerts and metrics, with SQL too",
    "act": "acknowledge, silence and resolve alerts, stop and pause runs",
    "admin": "change policies and subscriptions, write the store, migrate it, back it up, and manage credentials",
    "ingest": "send steps",
}
"""What each scope allows. No scope contains another one."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
TOKEN_PREFIX: Final = "stepstream_"
VERSION: Final = 1
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
"""16 MiB and about 50 ms for one password."""
SECRET_BYTES: Final = 32
MAX_SECRET_CHARACTERS: Final = 1024
FREE_TRIES: Final = 10
TRIES_PER_SECOND: Final = 1.0
MAX_CLIENTS: Final = 10_000
MAX_VERIFIED: Final = 1_000


class CredentialsError(ValueError):
    """A credential file or an entry of it that cannot be used; says which and why."""


class TooManyTries(Exception):
    """This client address has failed too often: it may try again after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            f"too many failed tries from this address; try again in {retry_after_s:.0f} s"
        )
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Credential:
    """One entry: a name, the hash of its secret, what it allows, and in which projects (empty: in all)."""

    name: str
    hash: str
    scopes: frozenset[Scope]
    projects: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise CredentialsError(
                f"{self.name!r} is not a credential's name: use a-z, 0-9, _ and -, at most 64 characters"
            )
        unknown = sorted(set(self.scopes) - SCOPES.keys())
        if unknown:
            raise CredentialsError(
                f"{unknown[0]!r} (credential {self.name}) is not a scope: use {', '.join(SCOPES)}"
            )
        if not _is_hash(self.hash):
            raise CredentialsError(
                f"the hash of credential {self.name} is neither sha256:HEX nor scrypt:N:R:P:SALT:HEX"
            )

    def allows(self, scope: Scope, project: str | None = None) -> bool:
        """Whether it has the scope, for that project; without a project: for all projects at once."""
        if scope not in self.scopes:
            return False
        return not self.projects or (project is not None and project in self.projects)


def new_secret() -> str:
    """A random secret of 256 bits, of characters that need no quoting in a URL, a shell or a file."""
    return secrets.token_hex(SECRET_BYTES)


def new_credential(
    name: str, scopes: Iterable[Scope], projects: Iterable[str] = ()
) -> tuple[Credential, str]:
    """An entry with a new random secret, and that secret. Raises ``CredentialsError`` for a name or scope that is none."""
    secret = new_secret()
    return Credential(name, hash_token(secret), frozenset(scopes), frozenset(projects)), secret


def hash_token(secret: str) -> str:
    """The hash of a secret from ``new_secret``. For anything that people chose use ``hash_password``."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def hash_password(password: str) -> str:
    """The salted scrypt hash of a password that a person chose. Raises ``CredentialsError`` for an empty or huge one."""
    if not 0 < len(password) <= MAX_SECRET_CHARACTERS:
        raise CredentialsError(f"a password has 1 to {MAX_SECRET_CHARACTERS} characters")
    salt = secrets.token_hex(16)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}:{salt}:{digest}"


def token_of(name: str, secret: str) -> str:
    """Name and secret as one string, for ``Authorization: Bearer`` and ``x-api-key``."""
    return f"{TOKEN_PREFIX}{name}.{secret}"


def split_token(token: str) -> tuple[str, str] | None:
    """The name and the secret of a token; None for what is no token."""
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
    """The table, and the check of a name and a secret against it. Safe to use from several threads.

    A check against a token's hash takes microseconds. The first check against a password's hash takes about 50 ms
    (``is_slow``), so call it outside an event loop; pairs that were right are remembered in memory, as keyed hashes.
    """

    def __init__(self, entries: Iterable[Credential] = ()) -> None:
        self._entries: dict[str, Credential] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise CredentialsError(f"credential {entry.name} is there twice")
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
        """The entry of that name."""
        return self._entries.get(name)

    def with_entry(self, entry: Credential) -> Credentials:
        """A table with this entry, in the place of one of the same name."""
        return Credentials([*(one for one in self if one.name != entry.name), entry])

    def without(self, name: str) -> Credentials:
        """A table without that entry."""
        return Credentials(one for one in self if one.name != name)

    def is_slow(self, name: str, secret: str) -> bool:
        """Whether ``verify`` of this pair has to compute a password's hash."""
        entry = self._entries.get(name)
        return (
            entry is not None
            and entry.hash.startswith("scrypt:")
            and not self._is_verified(self._mark(entry, secret))
        )

    def verify(self, name: str, secret: str, *, client: str, now_s: float) -> Credential | None:
        """The entry whose name and secret these are; None where they are wrong.

        ``client`` is the address that the request came from, ``now_s`` a monotonic time in seconds. Raises
        ``TooManyTries`` in place of None for an address that fails again and again, and then no password's hash is
        computed for it. A right token, and a right password that was verified before, is taken from any address at any time, so
        nobody can lock others out by failing.
        """
        entry = self._entries.get(name)
        if len(secret) > MAX_SECRET_CHARACTERS:
            entry = None
        if entry is not None and self._matches(entry, secret, client, now_s):
            return entry
        with self._guard:
            wait_s = self._failures.add(client, now_s)
        if wait_s > 0:
            raise TooManyTries(wait_s)
        return None

    def _matches(self, entry: Credential, secret: str, client: str, now_s: float) -> bool:
        if entry.hash.startswith("sha256:"):
            return hmac.compare_digest(entry.hash, hash_token(secret))
        mark = self._mark(entry, secret)
        if self._is_verified(mark):
            return True
        with self._slowly:
            if self._is_verified(mark):  # meanwhile, by another thread
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
        """What is remembered of a pair that was right; worth nothing outside this process."""
        return hmac.digest(self._key, f"{entry.name}\0{entry.hash}\0{secret}".encode(), "sha256")

    def _is_verified(self, mark: bytes) -> bool:
        with self._guard:
            return mark in self._verified


class _Failures:
    """How often each address has failed: ``FREE_TRIES`` at once, then ``TRIES_PER_SECOND``. Bounded in memory."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By address: tries that are left, and when that was computed."""

    def wait_s(self, client: str, now_s: float) -> float:
        """How long this address has to wait before its next try; 0 where it need not."""
        left = self._left(_network(client), now_s)
        return 0.0 if left >= 1 else (1 - left) / TRIES_PER_SECOND

    def add(self, client: str, now_s: float) -> float:
        """Count a failed try; how long to wait where there was none left."""
        network = _network(client)
        wait_s = self.wait_s(client, now_s)
        self._held[network] = (
            max(0.0, self._left(network, now_s) - (1 if wait_s == 0 else 0)),
            now_s,
        )
        self._held.move_to_end(network)
        if len(self._held) > MAX_CLIENTS:
            self._held.popitem(last=False)
        return wait_s

    def _left(self, network: str, now_s: float) -> float:
        left, then_s = self._held.get(network, (float(FREE_TRIES), now_s))
        return min(float(FREE_TRIES), left + max(0.0, now_s - then_s) * TRIES_PER_SECOND)


def _network(client: str) -> str:
    """The address; of IPv6 the /64, which one machine has whole."""
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
    memory = 128 * r * (n + p) + (1 << 20)
    return hashlib.scrypt(
        password.encode(), salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=memory, dklen=32
    ).hex()


def load(path: Path) -> Credentials:
    """The table of a file. Raises ``CredentialsError`` naming the file where it cannot be read or is no such table."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["version"] != VERSION:
            raise CredentialsError(
                f"version {held['version']}, and this release reads version {VERSION}"
            )
        return Credentials(_entry(one) for one in held["credentials"])
    except OSError as error:
        raise CredentialsError(
            f"the credential file {path} cannot be read: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(
            f"the credential file {path} cannot be used: {error or type(error).__name__}"
        ) from None


def load_or_none(file: str) -> Credentials:
    """The table of a setting's file; an empty one, which lets nobody in, where the setting is empty. Raises as ``load``."""
    return load(Path(file).expanduser()) if file else Credentials()


def _entry(held: dict[str, object]) -> Credential:
    name, stored, scopes, projects = (held[key] for key in ("name", "hash", "scopes", "projects"))
    if not isinstance(name, str) or not isinstance(stored, str):
        raise CredentialsError("name and hash of a credential are texts")
    granted: frozenset[Any] = frozenset(_texts(name, scopes))
    return Credential(name, stored, granted, frozenset(_texts(name, projects)))


def _texts(name: str, held: object) -> list[str]:
    if not isinstance(held, list) or not all(isinstance(one, str) for one in held):
        raise CredentialsError(f"scopes and projects of credential {name} are lists of texts")
    return held


def save(path: Path, table: Credentials) -> None:
    """Write the table whole or not at all, readable for this user alone."""
    held = [
        {
            "name": one.name,
            "hash": one.hash,
            "scopes": sorted(one.scopes),
            "projects": sorted(one.projects),
        }
        for one in table
    ]
    write_private(path, json.dumps({"version": VERSION, "credentials": held}, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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
