"""Authentication: credentials from headers, checked before anything of the body is read."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Final, Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from stepstream.common.web.credentials import Credential, Credentials, TooManyTries, split_token
from stepstream.common.web.credentials import Scope as CredentialScope
from stepstream.common.web.errors import WebError

Pair = tuple[str, str]
Reader = Callable[[Scope], Pair | None]
"""Finds name and secret in a request's headers; None if there are none. Raises ``WebError``."""

# Not Basic: a browser would ask for a password, keep it, and send it with requests of other pages.
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="stepstream"'}


def basic(value: str) -> Pair:
    """Name and secret of a Basic header. Raises ``WebError``."""
    try:
        name, colon, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise WebError(
            401,
            "the Authorization header cannot be read: Basic and base64 of name:secret",
            CHALLENGE,
        )
    return name, secret


def from_headers(scope: Scope) -> Pair | None:
    """``Authorization: Basic``, ``Authorization: Bearer TOKEN`` or ``x-api-key: TOKEN``."""
    headers = Headers(scope=scope)
    given = headers.get("authorization", "")
    scheme, _, value = given.partition(" ")
    if scheme.lower() == "basic":
        return basic(value)
    token = value if scheme.lower() == "bearer" else "" if given else headers.get("x-api-key", "")
    if token:
        pair = split_token(token)
        if pair is None:
            raise WebError(
                401, "the token cannot be read: it begins with stepstream_ and a name", CHALLENGE
            )
        return pair
    if given:
        raise WebError(401, "Authorization is Basic or Bearer here", CHALLENGE)
    return None


class Caller(Protocol):
    """Who sends a request, and what is allowed; ``Credential`` is one."""

    @property
    def name(self) -> str:
        """The name that is recorded."""

    def allows(self, scope: CredentialScope, project: str | None = None) -> bool:
        """Whether the caller has the scope for that project, or, without one, for all."""


class Identifies(Protocol):
    """Finds the caller of a request before anything of the body is read."""

    async def identify(self, scope: Scope) -> Caller:
        """The caller. Raises ``WebError``."""


class Access:
    """Checks requests against a credential table."""

    def __init__(self, table: Credentials, read: Reader = from_headers) -> None:
        self.table = table
        self._read = read

    async def identify(self, scope: Scope) -> Credential:
        """The caller. Raises ``WebError`` 401, or 429 for an address that keeps failing."""
        pair = self._read(scope)
        if pair is None:
            raise WebError(
                401, "this needs credentials: see `stepstream up`, or docs/security.md", CHALLENGE
            )
        client = scope.get("client")
        address = client[0] if client else ""
        try:
            if self.table.is_slow(*pair):
                found = await asyncio.to_thread(self._verify, pair, address)
            else:
                found = self._verify(pair, address)
        except TooManyTries as error:
            raise WebError(
                429, str(error), {"Retry-After": str(int(error.retry_after_s) + 1)}
            ) from None
        if found is None:
            raise WebError(401, "name or secret is wrong", CHALLENGE)
        return found

    def _verify(self, pair: Pair, client: str) -> Credential | None:
        return self.table.verify(*pair, client=client, now_s=time.monotonic())
