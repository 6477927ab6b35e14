"""Replays of recorded runs in a test: their calls are served, and nothing outside is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from stepstream.producers.recordings.boundary import outside
from stepstream.producers.recordings.player import Player, ReplayDiverged, Rules
from stepstream.producers.recordings.values import ValueLost, decode
from stepstream.schemas.recording import Recording, RecordingError, parse_lines, recording_of
from stepstream.testing.runs import Recorded, recording

LIVE: Final = frozenset({"models", "tools"})

__all__ = ["Replay", "ReplayDiverged", "Rules", "input_of", "read_recording", "replaying"]


def read_recording(file: str | Path) -> Recording:
    """The recording in a file, also in one that ``stepstream incident save`` wrote.

    Raises ``RecordingError``: unreadable, of another version, damaged, or with a secret.
    """
    name, path = str(file), Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not a text in UTF-8"
        if isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
        raise RecordingError(f"{name}: {reason}") from None
    lines = _of_incident(name, text)
    return recording_of(name, parse_lines(name, text) if lines is None else lines)


def _of_incident(name: str, text: str) -> list[dict[str, Any]] | None:
    """The lines in a saved run; None for a file of another kind."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("kind") != "Incident":
        return None
    lines = value.get("recording")
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        lines = []
    if not lines:
        raise RecordingError(
            f"{name}: the saved run has no recording; set recordings where the agent runs, and "
            "save the run with the same --recordings"
        )
    return lines


def input_of(made: Recording) -> Any:
    """What the recorded run was called with. Raises ``RecordingError``."""
    try:
        return decode(made.input)
    except ValueLost as error:
        raise RecordingError(f"the input of the run cannot be restored: {error}") from None


class Replay:
    """A replay that is going on, or has ended."""

    def __init__(self, made: Recording, player: Player, recorded: Recorded) -> None:
        self.recording = made
        self.input = input_of(made)
        self.recorded = recorded
        self._player = player

    @property
    def divergence(self) -> str:
        """The first difference from the recording, in words; empty if there is none."""
        return self._player.ended()

    @property
    def calls(self) -> int:
        """Calls that the program has made so far, served or not."""
        return self._player.calls

    @property
    def made_live(self) -> int:
        """Calls that were made instead of served."""
        return self._player.made_live

    def assert_equal(self) -> None:
        """Raises ``AssertionError`` with the divergence, if there is one."""
        found = self.divergence
        assert not found, found


@contextmanager
def replaying(
    source: str | Path | Recording,
    *,
    live: Iterable[str] = (),
    swap: Mapping[str, Callable[..., Any]] | None = None,
    until: int | None = None,
) -> Iterator[Replay]:
    """Serve the calls of a recorded run inside the block; nothing is sent and nothing is called.

    The block calls the agent with ``replay.input``. A call that was not recorded raises
    ``ReplayDiverged``. ``live`` (``models``, ``tools``) are called instead, ``swap`` has functions
    to be called in the place of tools, and calls after number ``until`` are made. Raises
    ``RecordingError``.
    """
    made = source if isinstance(source, Recording) else read_recording(source)
    player = Player(made, Rules(frozenset(live), dict(swap or {}), until))
    before = outside.boundary
    outside.boundary = player
    try:
        with recording() as recorded:
            yield Replay(made, player, recorded)
    finally:
        outside.boundary = before
