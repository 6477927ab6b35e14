"""HTTP for channels: urllib3, over checked addresses, with a time limit for the whole request.

Raises ``Refused`` and ``TemporaryFailure`` of ``failures``.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
)
from urllib3.exceptions import TimeoutError as HttpTimeoutError

from stepstream.common.retry_after import retry_after_s
from stepstream.sinks.notify.deadlines import DEADLINES, Limit
from stepstream.sinks.notify.failures import Refused, TemporaryFailure, describe_failure
from stepstream.sinks.notify.ssrf import (
    ForbiddenAddress,
    Resolve,
    checked_addresses,
    connect,
    resolve,
)

MAX_ANSWER_BYTES: Final = 4_096
MAX_REDIRECTS: Final = 3
MAX_RETRY_AFTER_S: Final = 3_600.0
RETRIED_STATUSES: Final = frozenset({408, 425, 429})
"""Besides 5xx."""
HOSTS_KEPT: Final = 512
"""Addresses of which idle connections are kept: those used last."""
CONNECTIONS_PER_HOST: Final = 32
_PORTS: Final = {"http": 80, "https": 443}
_SAFE_HEADERS: Final = frozenset({"content-type", "user-agent", "idempotency-key"})
"""Headers that cannot be secrets: the only ones that are sent to the target of a redirect."""


@dataclass(frozen=True)
class Answer:
    """Status and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode("utf-8", "replace")


class _LimitedHTTPConnection(HTTPConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        if self.sock is not None:
            DEADLINES.attach(self.sock)
        return super().getresponse()


class _LimitedHTTPSConnection(HTTPSConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        if self.sock is not None:
            DEADLINES.attach(self.sock)
        return super().getresponse()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _LimitedHTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _LimitedHTTPSConnection


class HttpClient:
    """Sends requests and opens connections to checked addresses. Thread-safe.

    Every request resolves the host, checks all of its addresses and connects to one of them by its
    number, so that no second lookup can lead elsewhere. The name is used for TLS and for the header
    Host only. Proxies that the environment names are not used: behind one the check means nothing.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        lookup: Resolve = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.allow_private = allow_private
        self._lookup = lookup
        self.ssl_context = ssl_context or ssl.create_default_context()
        self._pools = urllib3.PoolManager(
            HOSTS_KEPT, maxsize=CONNECTIONS_PER_HOST, ssl_context=self.ssl_context
        )
        self._pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def close(self) -> None:
        """Close the idle connections."""
        self._pools.clear()

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """Send a POST request. Returns an answer with a status of 2xx.

        ``timeout_s`` is the limit for the whole, redirects included.

        Raises:
            Refused: the address is forbidden, or the status is one that will not change.
            TemporaryFailure: no answer in time, a network error, or a status 408, 425, 429 or 5xx.
        """
        deadline = time.monotonic() + timeout_s
        host = urlsplit(url).netloc
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._request(url, body, headers, deadline)
            except ForbiddenAddress as error:
                raise Refused(str(error)) from None
            except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
                raise TemporaryFailure(describe_failure(_innermost(error), deadline)) from None
            if answer.status not in (301, 302, 303, 307, 308):
                return _accepted(answer)
            url = _redirect_target(answer, url)
            if urlsplit(url).netloc != host:
                headers = {
                    name: value for name, value in headers.items() if name.lower() in _SAFE_HEADERS
                }
        raise Refused(f"redirected more than {MAX_REDIRECTS} times")

    def connect(self, host: str, port: int, deadline: float, *, tls: bool) -> socket.socket:
        """A connection to a checked address of the host; with ``tls`` the certificate is verified.

        Raises ``ForbiddenAddress`` or ``OSError``.
        """
        sock = connect(self._addresses(host, port), deadline)
        return self.ssl_context.wrap_socket(sock, server_hostname=host) if tls else sock

    def _addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        return checked_addresses(host, port, allow_private=self.allow_private, lookup=self._lookup)

    def _request(
        self, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> Answer:
        """One request to the first address of the URL's host that accepts a connection."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise Refused("not an http or https URL")
        host = parts.hostname
        name = host if host.isascii() else host.encode("idna").decode()
        sent = {"Host": _host_header(parts, name), **headers}
        error: Exception = OSError(f"{host} has no address")
        for address, port in self._addresses(host, parts.port or _PORTS[parts.scheme]):
            pool = self._pools.connection_from_host(
                address, port, parts.scheme, pool_kwargs={"server_hostname": name}
            )
            try:
                with DEADLINES.limit(deadline) as limit:
                    return self._exchange(pool, parts, body, sent, limit)
            except (NewConnectionError, ConnectTimeoutError) as problem:
                error = problem
        raise error

    def _exchange(
        self,
        pool: urllib3.HTTPConnectionPool,
        parts: SplitResult,
        body: bytes,
        headers: Mapping[str, str],
        limit: Limit,
    ) -> Answer:
        opened = pool.num_connections
        try:
            return _send(pool, parts, body, headers, limit)
        except ProtocolError:
            if pool.num_connections > opened or time.monotonic() >= limit.deadline:
                raise
        # The server closed a connection that was kept from an earlier request, while this one was
        # on its way. The idempotency key makes a repetition harmless.
        return _send(pool, parts, body, headers, limit)


def _send(
    pool: urllib3.HTTPConnectionPool,
    parts: SplitResult,
    body: bytes,
    headers: Mapping[str, str],
    limit: Limit,
) -> Answer:
    path = parts.path or "/"
    response = pool.urlopen(
        "POST",
        f"{path}?{parts.query}" if parts.query else path,
        body,
        dict(headers),
        retries=False,
        redirect=False,
        assert_same_host=False,
        timeout=urllib3.Timeout(total=limit.remaining_s),
        preload_content=False,
        decode_content=False,
    )
    try:
        data = response.read(MAX_ANSWER_BYTES)
        if time.monotonic() >= limit.deadline:
            # The socket was shut down at the deadline, which reads like the end of the body.
            raise TimeoutError
        return Answer(response.status, response.headers, data)
    finally:
        # A response that was read to its end has returned its connection to the pool already;
        # this closes the connection of a longer one.
        response.close()


def _host_header(parts: SplitResult, name: str) -> str:
    """The value of the header Host: with the port, if the URL has one."""
    host = f"[{name}]" if ":" in name else name
    return host if parts.port in (None, _PORTS[parts.scheme]) else f"{host}:{parts.port}"


def _accepted(answer: Answer) -> Answer:
    """The answer, if its status is 2xx. Raises ``Refused`` or ``TemporaryFailure``."""
    status = answer.status
    if 200 <= status < 300:
        return answer
    reason = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    text = " ".join(answer.text.split())[:200]
    reason = f"{reason}: {text}" if text else reason
    if status in RETRIED_STATUSES or status >= 500:
        wait_s = retry_after_s(answer.headers.get("retry-after", ""), MAX_RETRY_AFTER_S)
        raise TemporaryFailure(reason, round(wait_s * 1e6))
    raise Refused(reason)


def _redirect_target(answer: Answer, url: str) -> str:
    """The URL that a redirect leads to. Raises ``Refused`` unless it repeats the POST."""
    location = answer.headers.get("location", "")
    if answer.status not in (307, 308) or not location:
        # Any other status asks for a GET, which would deliver nothing.
        raise Refused(
            f"HTTP {answer.status}: a redirect that does not repeat the POST; write the final URL"
        )
    target = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise Refused("redirected from https to an unencrypted URL")
    return target


def _innermost(error: BaseException) -> BaseException:
    """The error of the standard library behind an error of urllib3, whose own text names a path."""
    if isinstance(error, HttpTimeoutError):
        return TimeoutError()
    while isinstance(error, HTTPError):
        inner = next((one for one in error.args if isinstance(one, Exception)), error.__cause__)
        if inner is None:
            return error
        error = inner
    return error
