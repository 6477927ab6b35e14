"""Metadata of offsets comes back with whatever follows it in memory."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.common.kafka import KafkaUnreachable, committed_metadata


class Place:
    """A committed offset whose metadata is text, or cannot be read as text."""

    topic, partition = "t.steps", 3

    def __init__(self, text: str | bytes | None) -> None:
        self._text = text

    @property
    def metadata(self) -> str | None:
        return self._text.decode() if isinstance(self._text, bytes) else self._text


class Client:
    """Answers with one place after the other."""

    def __init__(self, *places: Place) -> None:
        self._places = list(places)

    def committed(self, _asked: Any, timeout: float) -> list[Place]:
        assert timeout > 0
        return [self._places.pop(0) if len(self._places) > 1 else self._places[0]]


def read(first: Place, *later: Place) -> str:
    client: Any = Client(*later)
    place: Any = first
    return committed_metadata(client, place, tries=1 + len(later))


def test_metadata_that_is_no_text_is_asked_for_again() -> None:
    """Another copy has something else behind its end."""
    garbled = Place(b"2;state=123;\x9c")
    assert read(garbled, garbled, Place("2;state=123;9")) == "2;state=123;9"
    assert read(Place(None)) == ""


def test_metadata_that_stays_unreadable_is_an_outage() -> None:
    """Nothing is guessed: the caller waits and asks again."""
    garbled = Place(b"\xff")
    with pytest.raises(KafkaUnreachable, match="partition 3 cannot be read"):
        read(garbled, garbled)
