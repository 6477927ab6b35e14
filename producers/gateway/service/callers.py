"""Who sends: keys from headers in every form that exporters use, and what a caller may write."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from stepstream.common.web.access import Access, Pair, basic, from_headers
from stepstream.common.web.credentials import TOKEN_PREFIX, Credential, split_token
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import CALLER, require
from stepstream.common.web.headers import Hosts, is_loopback
from stepstream.common.web.key_file import KeyFile

PROJECT_HEADER: Final = "x-stepstream-project"
LOOPBACK: Final = Credential("loopback", f"sha256:{'0' * 64}", frozenset({"ingest", "releases"}))
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
