"""Who uses the console: one-time links, cookies, keys, and the header of a trusted proxy."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from stepstream.common.web.access import Access
from stepstream.common.web.credentials import Credential
from stepstream.common.web.credentials import Scope as CredentialScope
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import CALLER
from stepstream.common.web.key_file import KeyFile
from stepstream.console.signed_out import SignedOut
from stepstream.console.signing import LINK, SESSION, BadSignature, Expired, opened, signed
from stepstream.schemas.printable import printable
from stepstream.schemas.settings import Settings

SESSION_S: Final = 7 * 86_400.0
CSRF_HEADER: Final = "x-stepstream-csrf"
MAX_USED: Final = 10_000
MAX_USER_CHARS: Final = 200
OPERATOR: Final[frozenset[CredentialScope]] = frozenset({"read", "act", "admin"})
EXPIRED: Final = "the session has expired or the console's secret has changed: sign in again"
AGAIN: Final = "`stepstream open` prints a new one"


@dataclass(frozen=True)
class User:
    """A person or program that is signed in."""

    name: str
    scopes: frozenset[CredentialScope]
    projects: frozenset[str] = frozenset()
    """The only projects that this user may see; empty: all."""
    by_browser: bool = False
    by_session: bool = False
    """Whether the browser adds what identifies the user by itself, so that a page of another
    origin could make it do so."""

    def allows(self, scope: CredentialScope, project: str | None = None) -> bool:
        """Whether the user has the scope for that project, or, without one, for some."""
        if scope not in self.scopes:
            return False
        return project is None or not self.projects or project in self.projects


class Login:
    """Makes and checks sessions."""

    def __init__(
        self, settings: Settings, secret: str, start: str, folder: Path | None = None
    ) -> None:
        """``folder`` keeps which sessions were signed out. Raises ``CredentialsError`` where the
        credential file cannot be used, ``ValueError`` where an address of the proxy is none."""
        self._signed_out = SignedOut(folder)
        self._secret = secret
        self._start = start
        self._used: OrderedDict[str, None] = OrderedDict()
        self._keys = KeyFile(settings.credentials_file)
        self._access = Access(self._keys.table)
        self._proxy_header = settings.console_proxy_header.lower()
        self._proxies = _networks(settings.console_proxy_addresses)
        self._proxy_scopes: frozenset[Any] = frozenset(_listed(settings.console_proxy_scopes))
        # Browsers send the cookies of all ports of a host: two consoles need two names.
        self.cookie_name = f"stepstream_{hashlib.sha256(secret.encode()).hexdigest()[:8]}"

    async def identify(self, scope: Scope) -> User:
        """Whose request this is. Raises ``WebError`` 401 and 429."""
        headers = Headers(scope=scope)
        if "authorization" in headers or "x-api-key" in headers:
            self._access.table = self._keys.refreshed(time.monotonic())
            return _user_of(await self._access.identify(scope))
        name = headers.get(self._proxy_header, "") if self._proxy_header else ""
        if name and self.is_proxy(scope):
            return User(_clean(name), self._proxy_scopes, by_browser=True)
        cookie = self._cookie(scope)
        if not cookie:
            raise WebError(401, "sign in: `stepstream open` prints a link; or with a key at /login")
        return self._of_cookie(cookie)

    def _cookie(self, scope: Scope) -> str:
        # Other servers of this machine set cookies too. SimpleCookie would read none after one with
        # a quotation mark in it.
        sent = Headers(scope=scope).get("cookie", "")
        return cookie_parser(sent).get(self.cookie_name, "")

    def sign_out(self, scope: Scope) -> None:
        """End the session of the request: its cookie is refused from now on, copies as well.

        Raises ``OSError`` where that cannot be kept.
        """
        now_s = time.time()
        try:
            fields = opened(self._secret, SESSION, self._cookie(scope), now_s)
        except (BadSignature, Expired):
            return
        self._signed_out.add(fields["nonce"], now_s + SESSION_S, now_s)

    def is_proxy(self, scope: Scope) -> bool:
        """Whether the request comes from an address of the trusted proxy."""
        client = scope.get("client")
        try:
            address = ipaddress.ip_address(client[0] if client else "")
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _of_cookie(self, cookie: str) -> User:
        try:
            fields = opened(self._secret, SESSION, cookie, time.time())
        except (BadSignature, Expired):
            raise WebError(401, EXPIRED) from None
        if fields["nonce"] in self._signed_out:
            raise WebError(401, "this session was signed out: sign in again")
        if "key" not in fields:
            return User(fields["user"], OPERATOR, by_browser=True, by_session=True)
        # The table decides at each request: a removed or rotated key ends its sessions.
        entry = self._keys.refreshed(time.monotonic()).get(fields["key"])
        if entry is None or _mark(entry) != fields["mark"]:
            raise WebError(401, "the key of this session was removed or rotated: sign in again")
        return _user_of(entry, by_session=True)

    def session_of_link(self, token: str) -> str:
        """The cookie for a one-time link. Raises ``WebError`` 401."""
        try:
            fields = opened(self._secret, LINK, token, time.time())
        except BadSignature:
            raise WebError(401, f"this link is not one of this console; {AGAIN}") from None
        except Expired:
            raise WebError(401, f"this link has expired; {AGAIN}") from None
        nonce = str(fields["nonce"])
        if fields["start"] != self._start:
            raise WebError(401, f"this link is older than the console's last start; {AGAIN}")
        if nonce in self._used:
            raise WebError(401, f"this link was used already; {AGAIN}")
        self._used[nonce] = None
        if len(self._used) > MAX_USED:
            self._used.popitem(last=False)
        return self._session({"user": str(fields["user"])})

    async def session_of_key(self, key: str, scope: Scope) -> str:
        """The cookie for a key. Raises ``WebError`` 401 and 429."""
        self._access.table = self._keys.refreshed(time.monotonic())
        sent = {**scope, "headers": [(b"x-api-key", key.strip().encode("latin-1", "replace"))]}
        entry = await self._access.identify(sent)
        if "read" not in entry.scopes:
            raise WebError(403, f"key {entry.name} lacks the scope read")
        return self._session({"key": entry.name, "mark": _mark(entry)})

    def _session(self, fields: dict[str, str]) -> str:
        return signed(
            self._secret,
            SESSION,
            {**fields, "nonce": secrets.token_hex(8)},
            time.time() + SESSION_S,
        )

    def set_cookie(self, value: str, *, secure: bool) -> str:
        """The header that sets the cookie, or with an empty value removes it."""
        age = round(SESSION_S) if value else 0
        only_https = "; Secure" if secure else ""
        return (
            f"{self.cookie_name}={value}; Path=/; Max-Age={age}; HttpOnly; "
            f"SameSite=Strict{only_https}"
        )


def user_of(scope: Scope) -> User:
    """The user of a request that ``Login`` has identified."""
    found: User = scope[CALLER]
    return found


def require_csrf(scope: Scope) -> None:
    """Raise ``WebError`` 403 for a POST that a page of another origin could have caused."""
    if user_of(scope).by_browser and CSRF_HEADER not in Headers(scope=scope):
        raise WebError(403, f"the header {CSRF_HEADER} is missing: send {CSRF_HEADER}: 1")


def _user_of(entry: Credential, *, by_session: bool = False) -> User:
    return User(entry.name, entry.scopes, entry.projects, by_session, by_session)


def _mark(entry: Credential) -> str:
    return hashlib.sha256(entry.hash.encode()).hexdigest()[:16]


def _clean(name: str) -> str:
    return printable(name.strip())[:MAX_USER_CHARS]


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _networks(text: str) -> Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(one, strict=False) for one in _listed(text)]


def names_of(text: str) -> Collection[str]:
    """The names of the setting ``console_hosts``."""
    return _listed(text)
