"""Reading a request's body: as a stream, within a time, counted on the wire and again in plain bytes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO, Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from stepstream.common.web import coding
from stepstream.common.web.errors import WebError

SPOOL_BYTES: Final = 16 << 20
"""A spooled body above this size goes to a file."""


class ClientLeft(Exception):
    """The client closed its connection in the middle of its request."""


async def pieces(
    scope: Scope, receive: Receive, *, max_bytes: int, wait_s: float = 60.0
) -> AsyncIterator[bytes]:
    """The body as it comes, still compressed.

    Raises ``WebError`` 413 beyond ``max_bytes`` (at once where Content-Length says so), 408 where nothing comes for
    ``wait_s`` seconds, and ``ClientLeft``.
    """
    length = Headers(scope=scope).get("content-length", "0")
    if int(length) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(wait_s):
                message = await receive()
        except TimeoutError:
            raise WebError(408, f"nothing of the body came for {wait_s:.0f} s") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            yield piece


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
    """The whole body, decompressed. ``max_plain_bytes`` 0 is ``max_bytes``. Raises ``WebError`` and ``ClientLeft``."""
    held = [piece async for piece in pieces(scope, receive, max_bytes=max_bytes, wait_s=wait_s)]
    encoding = Headers(scope=scope).get("content-encoding", "")
    try:
        return b"".join(coding.decode(iter(held), encoding, max_plain_bytes or max_bytes))
    except coding.UnknownCoding as error:
        raise WebError(415, str(error)) from None
    except coding.TooManyBytes as error:
        raise WebError(413, str(error)) from None
    except coding.CodingError as error:
        raise WebError(400, str(error)) from None


class Spool:
    """A body that was read to its end: small ones in memory, large ones in a file without a name."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    async def fill(self, scope: Scope, receive: Receive, *, max_bytes: int, wait_s: float) -> None:
        """Read the body. Raises as ``pieces`` does."""
        async for piece in pieces(scope, receive, max_bytes=max_bytes, wait_s=wait_s):
            self.size += len(piece)
            if self._file is None and self.size > SPOOL_BYTES:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                self._file.writelines(self._held)
                self._held = []
            if self._file is None:
                self._held.append(piece)
            else:
                self._file.write(piece)

    def pieces(self) -> Iterator[bytes]:
        """What was read, once."""
        held, self._held = self._held, []
        yield from held
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(coding.PIECE_BYTES):
                yield piece

    def close(self) -> None:
        """Forget it."""
        self._held = []
        if self._file is not None:
            self._file.close()
            self._file = None
