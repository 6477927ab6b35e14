"""Bounded unpacking of record batches, and records in place of batches that cannot be read.

A compressed batch of two megabytes can contain tens of gigabytes, and aiokafka unpacks all of it at
once. Here a batch may unpack to ``MAX_BATCH_BYTES``. One that is larger, or cannot be unpacked,
becomes a single record with the reason; it is dead-lettered and reported in an alert, and reading
continues after it. aiokafka raises instead and stops at the batch: aio-libs/aiokafka#321, open. The
missing bound is not reported upstream.

These functions replace private ones of aiokafka 0.14.0;
``tests/unit/stream/shell/test_faust_pin.py`` fails when those change.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record._crecords import default_records

from stepstream.schemas.batches import MAX_BATCH_BYTES, describe

CODECS: Final = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
USUAL_BYTES: Final = 4 * 1_048_576
"""Size of the buffer that is kept: nearly all batches unpack to less."""

AT_ONCE_BYTES: Final = 33_554_432
"""Records of a partition that are handed out at once, unless one alone is larger."""

REPLACED: Final = (fetcher.PartitionRecords._unpack_records, fetcher.FetchResult.getall)
"""aiokafka's own functions, for the test that pins them."""

_NO_ROOM: Final = "failed to write whole buffer"


class TooLarge(ValueError):
    """A batch would unpack to more than it may."""

    def __init__(self) -> None:
        super().__init__(f"it would unpack to more than {MAX_BATCH_BYTES:,} bytes")


class UnreadableBatch:
    """A batch that cannot be read, as a record without a value at its last offset. ``first`` is its
    first offset.
    """

    __slots__ = ("first", "headers", "key", "offset", "timestamp", "unreadable", "value")

    def __init__(self, first: int, last: int, timestamp: int, why: str) -> None:
        self.first = first
        self.offset = last
        self.timestamp = timestamp
        self.key: bytes | None = None
        self.value: bytes | None = None
        self.headers: tuple[tuple[str, bytes], ...] = ()
        self.unreadable = why


class Unpacker:
    """Decoders that stop at a bound. Not thread-safe."""

    def __init__(self, most_bytes: int = MAX_BATCH_BYTES) -> None:
        self._most_bytes = most_bytes
        self._room = bytearray(min(USUAL_BYTES, most_bytes))

    def zstd(self, payload: Any) -> bytes:
        """The contents of zstd frames. Raises ``TooLarge``, and what the decoder raises."""
        return self._into(cramjam.zstd.decompress_into, payload)

    def lz4(self, payload: Any) -> bytes:
        """The contents of an lz4 frame."""
        return self._into(cramjam.lz4.decompress_into, payload)

    def gzip(self, payload: Any) -> bytes:
        """The contents of gzip members."""
        out, left, data = [], self._most_bytes, bytes(payload)
        while data:
            member = zlib.decompressobj(31)
            out.append(member.decompress(data, left + 1))
            left -= len(out[-1])
            if left < 0:
                raise TooLarge
            if not member.eof:
                raise ValueError("a gzip member is cut off")
            data = member.unused_data
        return b"".join(out)

    def snappy(self, payload: Any) -> bytes:
        """The contents of snappy blocks, raw or in the frames that Java clients write; each block
        starts with its size.
        """
        data = memoryview(payload)
        if bytes(data[:8]) != b"\x82SNAPPY\x00":
            return self._block(data, self._most_bytes)
        out, left, place = [], self._most_bytes, 16
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            out.append(self._block(data[place + 4 : place + 4 + size], left))
            left -= len(out[-1])
            place += 4 + size
        return b"".join(out)

    def _block(self, data: memoryview, most: int) -> bytes:
        if cramjam.snappy.decompress_raw_len(data) > most:
            raise TooLarge
        return bytes(cramjam.snappy.decompress_raw(data))

    def _into(self, decode: Callable[[Any, Any], int], payload: Any) -> bytes:
        room = self._room
        while True:
            try:
                size = decode(payload, room)
            except cramjam.DecompressionError as error:
                if _NO_ROOM not in str(error):
                    raise
                if len(room) >= self._most_bytes:
                    raise TooLarge from None
                room = bytearray(min(4 * len(room), self._most_bytes))
            else:
                return bytes(memoryview(room)[:size])


def bound_unpacking() -> None:
    """Replace aiokafka's functions in this process."""
    unpacker = Unpacker()
    for name in ("zstd", "lz4", "gzip", "snappy"):
        setattr(default_records, f"{name}_decode", getattr(unpacker, name))
    fetcher.PartitionRecords._unpack_records = _unpack_records
    fetcher.FetchResult.getall = _getall


def _unpack_records(self: Any) -> Iterator[Any]:
    """As in aiokafka, but a batch that cannot be read becomes one record with the reason."""
    records, tp = self._records, self._tp
    while records.has_next():
        batch = records.next_batch()
        if self._check_crcs and not batch.validate_crc():
            # Damaged on the way from the broker: it is fetched again.
            raise CorruptRecordException(f"Invalid CRC - {tp}")
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                self.next_fetch_offset = batch.next_offset
                continue
        if batch.is_control_batch:
            self.next_fetch_offset = batch.next_offset
            continue
        try:
            for record in batch:
                if record.offset < self.next_fetch_offset:
                    continue
                made = self._consumer_record(tp, record)
                self.next_fetch_offset = record.offset + 1
                yield made
        except Exception as error:
            yield _unreadable(self, batch, error)
        self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)


def _unreadable(self: Any, batch: Any, error: Exception) -> UnreadableBatch:
    first, last = max(batch.base_offset, self.next_fetch_offset), batch.next_offset - 1
    self.next_fetch_offset = batch.next_offset
    codec = CODECS.get(batch.compression_type, str(batch.compression_type))
    return UnreadableBatch(
        first, last, batch.max_timestamp, describe(first, last, f"{codec}: {error}")
    )


def _getall(self: Any, max_records: int | None = None) -> list[Any]:
    """As in aiokafka, but only about ``AT_ONCE_BYTES`` at once; the rest is handed out by later
    calls.
    """
    if not self.check_assignment(self._topic_partition) or not self.has_more():
        return []
    found: list[Any] = []
    add, room = found.append, AT_ONCE_BYTES
    most = -1 if max_records is None else max_records
    for record in self._partition_records:
        add(record)
        value = record.value
        if value is not None:
            room -= len(value)
        most -= 1
        if not most or room <= 0:
            self._update_position()
            return found
    self._update_position()
    self._partition_records = None
    return found
