"""Releases as documents: their hash, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.release import (
    MAX_RELEASE_BYTES,
    WrongRelease,
    decode_release,
    encode_release,
    hash_of,
    release_of,
)
from tests.support.release_folder import built


def test_a_release_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With the hash of its content."""
    release = built(tmp_path)
    assert decode_release(encode_release(release)) == release
    assert release.content_hash() == release.hash


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"agent": "other"}, "content of another one"),
        ({"model": {"temperature": 1}}, "content of another one"),
        ({"hash": "0" * 64}, "content of another one"),
        ({"hash": "x"}, "hash is 'x'"),
        ({"tols": []}, "did you mean tools?"),
        ({"version": "a b"}, "version is 'a b'"),
    ],
)
def test_a_release_that_was_changed_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    """Its hash is computed again."""
    data = built(tmp_path).model_dump(mode="json")
    with pytest.raises(WrongRelease, match=reason):
        release_of({**data, **change})


def test_a_release_without_tools_is_refused(tmp_path: Path) -> None:
    """Also when its hash fits: an agent without tools writes ``tools: []``."""
    data = built(tmp_path).model_dump(mode="json")
    del data["tools"]
    with pytest.raises(WrongRelease, match="tools is missing"):
        release_of({**data, "hash": hash_of(data)})


def test_the_source_is_no_part_of_the_hash(tmp_path: Path) -> None:
    """The same content of another commit is the same release."""
    data = built(tmp_path).model_dump(mode="json")
    assert release_of({**data, "source": {"revision": "other"}}).hash == data["hash"]


@pytest.mark.parametrize("value", [b"", b"null", b"{", b"[" * 10_000, b"\xff", b"1e999"])
def test_what_is_no_release_is_refused(value: bytes) -> None:
    """With one kind of error."""
    with pytest.raises(WrongRelease):
        decode_release(value)


def test_a_release_is_bounded() -> None:
    """A record of the topic takes no more."""
    with pytest.raises(WrongRelease, match="at most"):
        decode_release(b" " * (MAX_RELEASE_BYTES + 1))
