"""Content-Encoding in both directions: gzip, deflate, lz4, zstd, and br if brotli is installed.

A few compressed bytes can stand for gigabytes. A decoder therefore returns little more than
``PIECE_BYTES`` at once, and ``decode`` stops at a limit of decompressed bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

PIECE_BYTES: Final = 1 << 20
ZSTD_WINDOW_BYTES: Final = 8 << 20
"""The largest window that HTTP allows (RFC 9659, section 3)."""
_ZSTD_BLOCK_BYTES: Final = 128 << 10
_ZSTD_BLOCKS_AT_ONCE: Final = PIECE_BYTES // _ZSTD_BLOCK_BYTES


class CodingError(ValueError):
    """A body cannot be decoded; the text is the reason."""


class UnknownCoding(CodingError):
    """The Content-Encoding is not supported."""


class TooManyBytes(CodingError):
    """There are more decompressed bytes than the limit."""


class Encoder(Protocol):
    """Compresses a stream of bytes."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


Decode = Callable[[Iterator[bytes]], Iterator[bytes]]


def decode(pieces: Iterator[bytes], encoding: str, max_bytes: int) -> Iterator[bytes]:
    """The decompressed bytes of a body; several frames or members in a row are one body.

    Raises ``UnknownCoding``, ``TooManyBytes`` above ``max_bytes`` decompressed bytes, and
    ``CodingError`` if the body is invalid or incomplete.
    """
    name = encoding.strip().lower()
    left = max_bytes
    for piece in _plain(pieces, name):
        left -= len(piece)
        if left < 0:
            raise TooManyBytes(
                f"the body has more than {max_bytes} bytes"
                + (" when it is decompressed" if name else "")
            )
        yield piece


def _plain(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    if name in ("", "identity"):
        yield from pieces
        return
    try:
        yield from decoder(name)(pieces)
    except CodingError:
        raise
    except Exception as problem:  # each library has errors of its own
        raise CodingError(f"the body is not valid {name}: {problem}") from None


def decoder(name: str) -> Decode:
    """The decoder for an encoding. Raises ``UnknownCoding``."""
    found = _DECODERS.get(name)
    if found is None or not _can(name):
        raise UnknownCoding(
            f"unknown compression {name[:40]!r}: use {', '.join(filter(_can, _DECODERS))}"
        )
    return found


def _can(name: str) -> bool:
    """Whether the package that an encoding needs is installed."""
    try:
        if name == "lz4":
            import lz4.frame  # noqa: F401 only whether it can be
        elif name == "zstd":
            import zstandard  # noqa: F401 only whether it can be
        elif name == "br":
            import brotli  # type: ignore[import-not-found]

            # Before version 1.2 the output of one call has no limit.
            return hasattr(brotli.Decompressor, "can_accept_more_data")
    except ImportError:
        return False
    return True


def _too_early(name: str) -> CodingError:
    return CodingError(f"the body's {name} stream ends too early")


def _zlib(wbits: int, name: str) -> Decode:
    def decode_all(pieces: Iterator[bytes]) -> Iterator[bytes]:
        raw, begun = zlib.decompressobj(wbits), False
        for piece in pieces:
            left = piece
            while left:
                begun = True
                yield raw.decompress(left, PIECE_BYTES)
                left = raw.unconsumed_tail
                if raw.eof:
                    left, raw, begun = raw.unused_data, zlib.decompressobj(wbits), False
        while begun and not raw.eof:
            plain = raw.decompress(b"", PIECE_BYTES)
            if not plain:
                raise _too_early(name)
            yield plain

    return decode_all


def _lz4(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import lz4.frame

    raw, begun = lz4.frame.LZ4FrameDecompressor(), False
    for piece in pieces:
        left = piece
        while left or (begun and not raw.needs_input):
            begun = True
            yield raw.decompress(left, PIECE_BYTES)
            left = b""
            if raw.eof:
                left, raw, begun = raw.unused_data or b"", lz4.frame.LZ4FrameDecompressor(), False
    if begun:
        raise _too_early("lz4")


def _brotli(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import brotli

    raw = brotli.Decompressor()
    begun = False
    for piece in pieces:
        begun = True
        yield raw.process(piece, output_buffer_limit=PIECE_BYTES)
        while not raw.can_accept_more_data():
            yield raw.process(b"", output_buffer_limit=PIECE_BYTES)
    if begun and not raw.is_finished():
        raise _too_early("br")


class _Bytes:
    """Reads numbers of bytes from an iterator of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises ``CodingError`` if there are fewer."""
        found = self.take_or_end(count)
        if len(found) < count:
            raise _too_early("zstd")
        return found

    def take_or_end(self, count: int) -> bytes:
        """The next ``count`` bytes; none at the end. Raises ``CodingError`` if there are fewer."""
        while len(self._buffer) < count:
            piece = next(self._pieces, None)
            if piece is None:
                if self._buffer:
                    raise _too_early("zstd")
                return b""
            self._buffer += piece
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.take(min(count, PIECE_BYTES)))


def _zstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # The output of one call of zstandard has no limit, so it gets a few blocks at a time: each
    # stands for 128 KiB at most (RFC 8878, section 3.1.1.2.4).
    source = _Bytes(pieces)
    while magic := source.take_or_end(4):
        number = int.from_bytes(magic, "little")
        if number >> 4 == 0x184D2A5:  # a frame to be skipped
            source.skip(int.from_bytes(source.take(4), "little"))
        elif number == 0xFD2FB528:
            yield from _zstd_frame(magic, source)
        else:
            raise CodingError("the body is not valid zstd: a frame begins with something else")


def _zstd_frame(magic: bytes, source: _Bytes) -> Iterator[bytes]:
    import zstandard

    raw = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
    first = source.take(1)
    descriptor = first[0]
    single = descriptor >> 5 & 1
    header = (not single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    parts, blocks, last = [magic, first, source.take(header)], 0, False
    while not last:
        head = source.take(3)
        value = int.from_bytes(head, "little")
        last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
        if size > _ZSTD_BLOCK_BYTES:
            raise CodingError("the body is not valid zstd: a block is too large")
        parts += [head, source.take(1 if kind == 1 else size)]
        blocks += 1
        if last and descriptor >> 2 & 1:
            parts.append(source.take(4))
        if last or blocks == _ZSTD_BLOCKS_AT_ONCE:
            yield raw.decompress(b"".join(parts))
            parts, blocks = [], 0
    if not raw.eof:
        raise _too_early("zstd")


_DECODERS: Final[dict[str, Decode]] = {
    "gzip": _zlib(31, "gzip"),
    "x-gzip": _zlib(31, "gzip"),
    "deflate": _zlib(47, "deflate"),
    "lz4": _lz4,
    "zstd": _zstd,
    "br": _brotli,
}


class _Lz4Encoder:
    """An LZ4 frame. The library makes its header separately; it is sent with the first block."""

    def __init__(self) -> None:
        import lz4.frame

        self._raw = lz4.frame.LZ4FrameCompressor()
        self._head = self._raw.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return bytes(head + self._raw.compress(data))

    def flush(self) -> bytes:
        return self.compress(b"") + bytes(self._raw.flush())


class _BrotliEncoder:
    def __init__(self) -> None:
        import brotli

        self._raw = brotli.Compressor(quality=4)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._raw.process(data))

    def flush(self) -> bytes:
        return bytes(self._raw.finish())


def _zstd_encoder() -> Encoder:
    import zstandard

    return zstandard.ZstdCompressor(level=1).compressobj()


# In order of preference: between two programs on one machine the fastest is best.
_ENCODERS: Final[dict[str, Callable[[], Any]]] = {
    "lz4": _Lz4Encoder,
    "zstd": _zstd_encoder,
    "gzip": lambda: zlib.compressobj(3, wbits=31),
    "deflate": lambda: zlib.compressobj(3),
    "br": _BrotliEncoder,
}


def choose(accepted: str, among: Iterable[str] = _ENCODERS) -> str:
    """The encoding for an answer, by the request's Accept-Encoding; empty: none."""
    offered = {
        part.partition(";")[0].strip().lower()
        for part in accepted.split(",")
        if not part.endswith("q=0")
    }
    for name in among:
        if name in offered:
            try:
                _ENCODERS[name]()
            except ImportError:
                continue
            return name
    return ""


def encoder(name: str) -> Encoder:
    """A compressor of a name that ``choose`` returned."""
    found: Encoder = _ENCODERS[name]()
    return found
