"""Checks of request headers, and the security headers of every answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final

from stepstream.common.web.errors import WebError

RawHeaders = Iterable[tuple[bytes, bytes]]

SECURITY: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Added to every answer, unless it has a header of that name (a page has a policy of its own)."""

_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ONCE: Final = frozenset(
    (
        b"host",
        b"authorization",
        b"content-type",
        b"content-encoding",
        b"origin",
        b"sec-fetch-site",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"cookie",
        b"x-api-key",
        b"last-event-id",
    )
)
_FETCH_DESTINATIONS: Final = frozenset({"empty", "document"})
_PARTS_OF_PAGES: Final = frozenset({"script", "style", "image", "font", "manifest"})


def of_answer(given: RawHeaders, page: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer: the given ones and the security headers.

    Raises ``ValueError`` for control characters, for text that is not ASCII, and for HTML that is
    not one of our pages.
    """
    headers = [(name.lower(), value) for name, value in given]
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the header {name!r} of an answer would hold {value[:80]!r}")
        if name == b"content-type" and not page and b"html" in value.lower():
            raise ValueError(f"an answer with data must not be {value[:80]!r}")
    present = {name for name, _ in headers}
    return headers + [header for header in SECURITY if header[0] not in present]


class Hosts:
    """The values of the header Host that a server accepts.

    A web page whose name was made to resolve to this machine (DNS rebinding) sends that name as the
    Host. So a server on loopback accepts only loopback names. Another one accepts addresses,
    ``names``, and names without a dot, which cannot be registered in public DNS.
    """

    def __init__(self, bound: str, names: Collection[str] = ()) -> None:
        self.loopback = is_loopback(bound)
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def knows(self, host: str) -> bool:
        """Whether the server accepts requests with this Host."""
        matched = _HOST.fullmatch(host)
        if matched is None:
            return False
        name = matched[1].lower().strip("[]").rstrip(".")
        if name in self._names or is_loopback(name):
            return True
        if self.loopback:
            return False
        return _is_address(name) or "." not in name


def is_loopback(host: str) -> bool:
    """Whether a host name or an address is a loopback one."""
    # Asked several times a request with the same few addresses; parsing one takes 3 us.
    return _remembered_loopback(host) if len(host) <= _REMEMBERED_CHARS else _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_REMEMBERED_CHARS: Final = 64
_remembered_loopback = lru_cache(maxsize=1_024)(_is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check(
    raw: RawHeaders, http_version: str, scheme: str, hosts: Hosts, *, page: bool = False
) -> None:
    """Raise ``WebError`` if the request is ambiguous, has a wrong Host, or is from a page.

    ``page``: the path is that of a page or its script, style, image or font. Other sites may link
    to it, because it contains no data.
    """
    found: dict[bytes, str] = {}
    for name, value in raw:
        if name in _ONCE and name in found:
            raise WebError(400, f"the header {name.decode()} was sent twice")
        found[name] = value.decode("latin-1")
    if http_version not in ("1.0", "1.1"):
        raise WebError(400, "this server supports HTTP/1.0 and HTTP/1.1 only")
    if found.get(b"transfer-encoding", "chunked").lower() != "chunked":
        raise WebError(400, "the only Transfer-Encoding is chunked; compress with Content-Encoding")
    host = found.get(b"host", "")
    if not hosts.knows(host):
        accepted = "localhost" if hosts.loopback else "its address and its configured names"
        raise WebError(403, f"the header Host is not one that this server accepts: {accepted}")
    origin = found.get(b"origin")
    if origin is not None and origin.lower() != f"{scheme}://{host}".lower():
        raise WebError(403, "requests from web pages of another origin are refused")
    destination = found.get(b"sec-fetch-dest", "empty")
    followed = page and destination == "document" and found.get(b"sec-fetch-mode", "") == "navigate"
    if found.get(b"sec-fetch-site", "none") not in ("none", "same-origin") and not followed:
        raise WebError(403, "requests from web pages of another site are refused")
    if destination not in (_FETCH_DESTINATIONS | _PARTS_OF_PAGES if page else _FETCH_DESTINATIONS):
        raise WebError(403, "answers cannot be embedded in web pages")
