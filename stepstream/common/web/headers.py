"""Headers of requests and answers: what every answer carries, what no answer may, and which requests no page may send."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
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
"""On every answer, unless it has a header of that name itself (a page has a policy of its own)."""

_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ONCE: Final = frozenset(
    {b"host", b"authorization", b"content-type", b"content-encoding", b"origin", b"sec-fetch-site", b"sec-fetch-dest",
     b"x-api-key", b"last-event-id"}
)  # fmt: skip
_FETCH_DESTINATIONS: Final = frozenset({"empty", "document"})


def of_answer(given: RawHeaders, page: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer: the given ones and the security headers.

    Raises ``ValueError`` for control characters and for what is not ASCII, and for HTML that is not a page of ours.
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
    """Which names a server answers to.

    A page whose name was made to point at this machine (DNS rebinding) sends that name as the Host. So a server on
    loopback answers to loopback names alone; another one to addresses, to names without a dot, which nobody can own in
    public DNS, and to ``names``.
    """

    def __init__(self, bound: str, names: Collection[str] = ()) -> None:
        self.loopback = is_loopback(bound)
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def knows(self, host: str) -> bool:
        """Whether a request with this Host may be meant for the server."""
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
    """Whether a host name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check(raw: RawHeaders, http_version: str, scheme: str, hosts: Hosts) -> None:
    """Refuse requests that are ambiguous, that name another host, or that a web page sent. Raises ``WebError``."""
    found: dict[bytes, str] = {}
    for name, value in raw:
        if name in _ONCE and name in found:
            raise WebError(400, f"the header {name.decode()} is there twice")
        found[name] = value.decode("latin-1")
    if http_version not in ("1.0", "1.1"):
        raise WebError(400, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if found.get(b"transfer-encoding", "chunked").lower() != "chunked":
        raise WebError(400, "the only Transfer-Encoding is chunked; compress with Content-Encoding")
    host = found.get(b"host", "")
    if not hosts.knows(host):
        where = (
            "to requests for this machine (localhost)"
            if hosts.loopback
            else "to its address and the names it was given"
        )
        raise WebError(
            403, f"this server answers only {where}, not for the Host that was asked for"
        )
    origin = found.get(b"origin")
    if origin is not None and origin.lower() != f"{scheme}://{host}".lower():
        raise WebError(403, "requests from web pages of another origin are not taken")
    if found.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
        raise WebError(403, "requests from web pages of another site are not taken")
    if found.get(b"sec-fetch-dest", "empty") not in _FETCH_DESTINATIONS:
        raise WebError(403, "answers cannot be embedded in web pages")
