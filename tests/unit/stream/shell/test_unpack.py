"""Decoders of batches that stop at a bound, and batches that cannot be read as one record."""

from __future__ import annotations

import gzip
import os
from typing import Any

import cramjam
import pytest

from stepstream.stream.core.deadletter import dead_letter
from stepstream.stream.shell.unpack import TooLarge, Unpacker, UnreadableBatch

MEGABYTE = 1_048_576
PACK: dict[str, Any] = {
    "zstd": cramjam.zstd.compress,
    "lz4": cramjam.lz4.compress,
    "gzip": gzip.compress,
    "snappy": cramjam.snappy.compress_raw,
}


@pytest.mark.parametrize("codec", PACK)
def test_each_codec_is_bounded(codec: str) -> None:
    decode = getattr(Unpacker(MEGABYTE), codec)
    for data in (b"", b"abc", os.urandom(50_000), b"x" * MEGABYTE):
        assert decode(bytes(PACK[codec](data))) == data
    with pytest.raises(TooLarge):
        decode(bytes(PACK[codec](b"x" * (MEGABYTE + 1))))
    with pytest.raises(Exception, match=r"."):
        decode(b"\x00\x01rubbish")


def test_room_grows_to_what_a_batch_needs() -> None:
    data = b"y" * (9 * MEGABYTE)
    assert Unpacker().zstd(bytes(cramjam.zstd.compress(data))) == data


def test_snappy_in_the_frames_of_java_clients_is_bounded_by_all_of_them() -> None:
    block = bytes(cramjam.snappy.compress_raw(b"x" * 600_000))
    framed = b"\x82SNAPPY\x00" + bytes(8) + (len(block).to_bytes(4, "big") + block) * 2
    assert Unpacker(1_200_000).snappy(framed) == b"x" * 1_200_000
    with pytest.raises(TooLarge):
        Unpacker(MEGABYTE).snappy(framed)


def test_gzip_members_are_bounded_together_and_one_that_is_cut_off_is_refused() -> None:
    member = gzip.compress(b"x" * 600_000)
    assert Unpacker(1_200_000).gzip(member + member) == b"x" * 1_200_000
    with pytest.raises(TooLarge):
        Unpacker(MEGABYTE).gzip(member + member)
    with pytest.raises(ValueError, match="cut off"):
        Unpacker().gzip(member[:-20])


def test_an_unreadable_batch_is_one_letter_with_the_finding_that_names_its_offsets() -> None:
    batch = UnreadableBatch(
        7, 19, 1_700_000_000_000, "offsets 7 to 19: a batch that cannot be read (zstd: too large)"
    )
    letter = dead_letter(batch, "steps", 3, "malformed_json", "no value")
    headers = dict(letter.headers)
    assert (headers["stepstream-offset"], headers["stepstream-reason"]) == (
        b"19",
        b"unreadable_batch",
    )
    assert letter.preceded_by is not None
    assert b"offsets 7 to 19 of steps/3" in (letter.preceded_by.value or b"")
