"""Reads a request's body, with limits on time, on compressed and on decompressed bytes."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO, Any, Final

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from stepstream.common.web import coding
from stepstream.common.web.errors import WebError

SPOOL_BYTES: Final = 16 << 20
"""A larger spooled body is kept in a file."""


class ClientLeft(Exception):
    """The client closed its connection in the middle of its request."""


async def pieces(
    scope: Scope,
    receive: Receive,
    *,
    max_bytes: int,
    wait_s: float = 60.0,
    total_s: float = math.inf,
) -> AsyncIterator[bytes]:
    """The parts of the body as they arrive, still compressed.

    Raises ``WebError`` 413 above ``max_bytes`` (at once if Content-Length is larger), 408 if
    nothing arrives for ``wait_s`` seconds or if the whole takes more than ``total_s``, and
    ``ClientLeft``.
    """
    deadline = time.monotonic() + total_s
    # The parser has checked that it is a number.
    length = Headers(scope=scope).get("content-length", "0")
    if int(length) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    more = True
    while more:
        left_s = deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(wait_s, left_s)):
                message = await receive()
        except TimeoutError:
            raise WebError(408, _too_slow(wait_s, left_s, total_s)) from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            yield piece


def _too_slow(wait_s: float, left_s: float, total_s: float) -> str:
    if left_s < wait_s:
        return f"the body did not arrive within {total_s:.0f} s"
    return f"no data of the body arrived for {wait_s:.0f} s"


def _too_large(max_bytes: int) -> WebError:
    return WebError(413, f"the body is larger than {max_bytes} bytes")


async def read(
    scope: Scope,
    receive: Receive,
    *,
    max_bytes: int,
    max_plain_bytes: int = 0,
    wait_s: float = 60.0,
) -> bytes:
    """The whole body, decompressed, of at most ``max_plain_bytes`` (0: ``max_bytes``).

    Raises ``WebError`` and ``ClientLeft``.
    """
    parts = [piece async for piece in pieces(scope, receive, max_bytes=max_bytes, wait_s=wait_s)]
    return decompressed(scope, parts, max_plain_bytes or max_bytes)


def decompressed(scope: Scope, parts: Iterable[bytes], max_plain_bytes: int) -> bytes:
    """The parts of a request's body as one, decompressed by its Content-Encoding.

    Raises ``WebError`` 415 for an unknown encoding, 413 above ``max_plain_bytes``, 400 if it is
    invalid.
    """
    encoding = Headers(scope=scope).get("content-encoding", "")
    try:
        return b"".join(coding.decode(iter(parts), encoding, max_plain_bytes))
    except coding.UnknownCoding as error:
        raise WebError(415, str(error)) from None
    except coding.TooManyBytes as error:
        raise WebError(413, str(error)) from None
    except coding.CodingError as error:
        raise WebError(400, str(error)) from None


def require_json(scope: Scope) -> None:
    """Raises ``WebError`` 415 unless the request states that its body is JSON."""
    media_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip()
    if media_type != "application/json":
        raise WebError(415, "send JSON, with Content-Type: application/json")


def json_object(sent: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty body is an empty object. Raises ``WebError`` 400."""
    try:
        # Not json.loads: it reads half a surrogate pair, which no encoder writes again.
        data = msgspec.json.decode(sent or b"{}")
    except (ValueError, RecursionError) as error:
        raise WebError(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise WebError(400, "send a JSON object")
    return data


class Spool:
    """A body that was read completely: in memory, or, if it is large, in an unnamed file."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    async def fill(self, scope: Scope, receive: Receive, *, max_bytes: int, wait_s: float) -> None:
        """Read the body. Raises as ``pieces`` does."""
        async for piece in pieces(scope, receive, max_bytes=max_bytes, wait_s=wait_s):
            self.size += len(piece)
            if self._file is None and self.size > SPOOL_BYTES:
                # Closed, and so deleted, by `close`.
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                self._file.writelines(self._parts)
                self._parts = []
            if self._file is None:
                self._parts.append(piece)
            else:
                self._file.write(piece)

    def pieces(self) -> Iterator[bytes]:
        """The parts of the body. They can be read once."""
        parts, self._parts = self._parts, []
        yield from parts
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(coding.PIECE_BYTES):
                yield piece

    def close(self) -> None:
        """Release memory and file."""
        self._parts = []
        if self._file is not None:
            self._file.close()
            self._file = None
