"""Who sends: keys from headers in every form that exporters use, and what a caller may write."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from stepstream.common.web.access import Access, Pair, basic, from_headers
from stepstream.common.web.credentials import (
    TOKEN_PREFIX,
    Credential,
    Credentials,
    CredentialsError,
    load,
    load_or_none,
    split_token,
)
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import CALLER, require
from stepstream.common.web.headers import Hosts, is_loopback

PROJECT_HEADER: Final = "x-stepstream-project"
CHECK_EVERY_S: Final = 2.0
_log = logging.getLogger("stepstream.gateway")
LOOPBACK: Final = Credential("loopback", f"sha256:{'0' * 64}", frozenset({"ingest"}))
"""The caller for programs on the same machine that send no key. No secret has this hash, so no key
can be used to sign in as it.
"""


def read_key(scope: Scope) -> Pair | None:
    """Name and secret of a request. Raises ``WebError``.

    Taken as well: a Basic login whose password is a whole token (``project:TOKEN``, as settings of
    Langfuse's clients lead to), and values that are still percent-encoded, because some exporters
    do not decode ``OTEL_EXPORTER_OTLP_HEADERS`` (``Basic%20...``).
    """
    given = Headers(scope=scope).get("authorization", "")
    if "%20" in given:
        given = unquote(given)
        if not given.lower().startswith("basic "):
            return _pair(given.partition(" ")[2])
    scheme, _, value = given.partition(" ")
    if scheme.lower() == "basic":
        name, secret = basic(value)
        return _pair(secret) if secret.startswith(TOKEN_PREFIX) else (name, secret)
    return from_headers(scope)


def _pair(token: str) -> Pair:
    pair = split_token(token)
    if pair is None:
        raise WebError(401, "the key cannot be read: it begins with stepstream_ and a name")
    return pair


class KeyFile:
    """The credential file, read again when it has changed, so that rotating a key needs no
    restart.
    """

    def __init__(self, file: str) -> None:
        """Raises ``CredentialsError`` where the file cannot be used."""
        self._path = Path(file).expanduser() if file else None
        self._stamp = self._stamp_now()
        self._checked_s = 0.0
        self.table = load_or_none(file)

    def _stamp_now(self) -> tuple[int, int, int]:
        if self._path is None:
            return (0, 0, 0)
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def refreshed(self, now_s: float) -> Credentials:
        """The table as it is now; as it was where the file cannot be read."""
        if self._path is None or now_s - self._checked_s < CHECK_EVERY_S:
            return self.table
        self._checked_s = now_s
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self.table = load(self._path)
            except CredentialsError as error:
                # Without the last valid keys a typing error in the file would stop all exporters.
                _log.error("the keys stay as they were: %s", error)
        return self.table


class GatewayAccess(Access):
    """Checks keys; programs of this machine need none of a server on loopback."""

    def __init__(self, keys: KeyFile, hosts: Hosts) -> None:
        super().__init__(keys.table, read_key)
        self._keys = keys
        self._hosts = hosts

    async def identify(self, scope: Scope) -> Credential:
        """Whose request this is. Raises ``WebError`` 401 and 429."""
        headers = Headers(scope=scope)
        client = scope.get("client")
        if (
            "authorization" not in headers
            and "x-api-key" not in headers
            and self._hosts.loopback
            and client is not None
            and is_loopback(client[0])
        ):
            return LOOPBACK
        self.table = self._keys.refreshed(time.monotonic())
        try:
            return await super().identify(scope)
        except WebError as error:
            if error.status != 401:
                raise
            hint = "; `stepstream keys` lists the keys" if "wrong" in str(error) else ""
            raise WebError(401, f"{error}{hint}", error.headers) from None


def projects_of(scope: Scope) -> frozenset[str]:
    """The projects that the caller may write to; empty for all."""
    caller = scope.get(CALLER)
    return frozenset() if caller is None else caller.projects


def project_of(scope: Scope, usual: str) -> str:
    """The project that the request's steps belong to, unless they name another one themselves.

    Raises ``WebError`` 403 where the caller may not send for it.
    """
    asked = Headers(scope=scope).get(PROJECT_HEADER, "")[:512].strip()
    allowed = projects_of(scope)
    project = asked or (usual if not allowed or usual in allowed else min(allowed))
    require(scope, "ingest", project)
    return project
