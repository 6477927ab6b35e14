"""Content-Encoding in both directions, piece by piece: gzip, deflate, lz4, zstd, and br where brotli is installed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from stepstream.sinks.embedded.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION, ClickHouseError, error


class Encoder(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _lz4_decoder() -> Any:
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


def _zstd_decoder() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _brotli_decoder() -> Any:
    import brotli  # type: ignore[import-not-found]

    return _Brotli(brotli.Decompressor())


class _Brotli:
    """brotli's decompressor under the names of the others."""

    unused_data = b""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def decompress(self, data: bytes) -> bytes:
        piece: bytes = self._raw.process(data)
        return piece

    @property
    def eof(self) -> bool:
        return bool(self._raw.is_finished())


class _Lz4Encoder:
    """An LZ4 frame; its header goes out before the first block."""

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


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "x-gzip": lambda: zlib.decompressobj(31),
    "deflate": lambda: zlib.decompressobj(47),
    "lz4": _lz4_decoder,
    "zstd": _zstd_decoder,
    "br": _brotli_decoder,
}
# In the order of preference: between two programs on one machine the cheapest wins.
_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "lz4": _Lz4Encoder,
    "zstd": _zstd_encoder,
    "gzip": lambda: zlib.compressobj(3, wbits=31),
    "deflate": lambda: zlib.compressobj(3),
    "br": _BrotliEncoder,
}


def decode(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The plain bytes of a body; several frames or members in a row are one body."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from pieces
        return
    begin = _decoder(name)
    decoder, begun = begin(), False
    for compressed in pieces:
        piece = compressed
        while piece:
            begun = True
            if plain := _decode_piece(decoder, piece, name):
                yield plain
            piece = b""
            if decoder.eof:
                piece, decoder, begun = decoder.unused_data, begin(), False
    if begun:
        raise error(CANNOT_DECOMPRESS, f"the body's {name} stream ends too early")


def _decoder(name: str) -> Callable[[], Any]:
    begin = _DECODERS.get(name)
    try:
        if begin is not None:
            begin()
            return begin
    except ImportError:
        pass
    raise error(UNKNOWN_COMPRESSION, f"Unknown compression method: {name}; known are {', '.join(_DECODERS)}")


def _decode_piece(decoder: Any, piece: bytes, name: str) -> bytes:
    try:
        plain: bytes = decoder.decompress(piece)
    except ClickHouseError:
        raise
    except Exception as problem:
        raise error(CANNOT_DECOMPRESS, f"the body is not valid {name}: {problem}") from None
    return plain


def choose(accepted: str) -> str:
    """The encoding for an answer to this Accept-Encoding; empty for none."""
    offered = {part.partition(";")[0].strip().lower() for part in accepted.split(",") if not part.endswith("q=0")}
    for name, begin in _ENCODERS.items():
        if name in offered:
            try:
                begin()
            except ImportError:
                continue
            return name
    return ""


def encoder(name: str) -> Encoder:
    """A compressor of a name that ``choose`` returned."""
    return _ENCODERS[name]()
