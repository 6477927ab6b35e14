"""Records that the worker itself cannot digest: tried three times, then dead-lettered, and never too many of them.

An exception pinned to one record stops the worker before anything is committed. The try is noted on a Kafka topic, so
that it survives the restart. At the third the record is skipped to the dead letter with the traceback. A bug that fails on
everything must not drain the topic into the dead letter: too many skips in a short time halt the partition instead. A worker
that starts on a halted partition tries its record once more, so that a mended one goes on by itself.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from stepstream.schemas.alert import FindingState, FindingStruct
from stepstream.schemas.ids import derived_id
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.core.outputs import Output

KEY_PREFIX: Final = b"!poison|"
MAX_TRIES: Final = 3
MAX_SKIPS: Final = 5
SKIP_WINDOW_US: Final = 600_000_000
PARDON: Final = -1
"""The offset of a note by which people forgive the skips before it."""


LEDGER_TOPICS: Final = {"steps": "state", "findings": "fleet", "usage": "fleet"}
"""Where the notes about a topic's records are kept; names without prefix, partition by partition."""


class ProcessingFailed(Exception):
    """Processing one record raised; says which, and holds the note to be sent before the worker stops."""

    def __init__(self, message: str, note: Output) -> None:
        super().__init__(message)
        self.note = note


LogTime = Annotated[int, msgspec.Meta(ge=0, lt=MAX_TIME_US)]


class Note(msgspec.Struct):
    """What is kept about a record that raised: ``at_us`` is its own log time, ``skipped_at_us`` the same once skipped."""

    offset: Annotated[int, msgspec.Meta(ge=-1, le=MAX_COUNT)]
    tries: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    traceback: str
    at_us: LogTime
    skipped_at_us: LogTime = 0


_decode = msgspec.json.Decoder(Note).decode


class PoisonLedger:
    """The tries and skips of one partition."""

    def __init__(self, topic: str, partition: int, ledger_topic: str) -> None:
        """``topic`` is where the records are, ``ledger_topic`` where notes are kept; names without prefix."""
        self._topic = topic
        self._partition = partition
        self._ledger_topic = ledger_topic
        self._notes: dict[int, Note] = {}
        self._pardoned: set[int] = set()

    def owns(self, key: bytes) -> bool:
        """Whether a record of the ledger's topic is a note of this partition's."""
        return key.startswith(KEY_PREFIX + f"{self._topic}|{self._partition}|".encode())

    def restore(self, value: bytes, latest_us: int = MAX_TIME_US) -> int:
        """Take over a note that was read, of a time until ``latest_us``; the newest of an offset holds. Returns its log time.

        Raises ``ValueError`` where it cannot be.
        """
        note = _decode(value)
        if max(note.at_us, note.skipped_at_us) > latest_us:
            raise ValueError(
                f"the note on offset {note.offset} is of no time until {latest_us}: {note.at_us}"
            )
        if note.offset == PARDON:
            self._pardoned.update(n.offset for n in self._notes.values() if n.skipped_at_us)
            return max((n.at_us for n in self._notes.values()), default=0)
        self._notes[note.offset] = note
        return note.at_us

    @property
    def is_pardoned(self) -> bool:
        """Whether people have let the partition go on after a halt."""
        return bool(self._pardoned)

    def pardon(self) -> Output:
        """The note by which people let a halted partition skip as many records again."""
        return self._note(Note(PARDON, 0, "", 0))

    def failed(self, offset: int, at_us: int, traceback: str) -> Output:
        """Count a try; returns the note to be sent and acknowledged before the worker stops."""
        before = self._notes.get(offset)
        note = self._notes[offset] = Note(
            offset, (before.tries if before else 0) + 1, traceback[-8_000:], at_us
        )
        return self._note(note)

    def verdict(self, offset: int) -> Note | None:
        """The note of a record that is to be skipped; None for one that is to be processed."""
        note = self._notes.get(offset)
        return note if note is not None and note.tries >= MAX_TRIES else None

    def recovered(self, offset: int) -> Output:
        """Note that the record was processed after all: it is not to be skipped when it is read again."""
        note = self._notes[offset] = Note(offset, 0, "", self._notes[offset].at_us)
        return self._note(note)

    def skipped(self, offset: int, now_us: int) -> Output:
        """Note that the record was dead-lettered at this log time."""
        note = self._notes[offset]
        note.skipped_at_us = note.skipped_at_us or now_us
        return self._note(note)

    def __bool__(self) -> bool:
        return bool(self._notes)

    def too_many(self, now_us: int) -> bool:
        """Whether so many records were skipped lately that the fault is ours and the partition must halt."""
        after_us = now_us - SKIP_WINDOW_US
        recent = (
            n
            for n in self._notes.values()
            if n.skipped_at_us > after_us and n.offset not in self._pardoned
        )
        return sum(1 for _ in recent) >= MAX_SKIPS

    def halted(self, offset: int, now_us: int) -> Output:
        """The finding that tells people of a halt; the same one however often the worker restarts."""
        return self._finding(
            "firing",
            offset,
            now_us,
            f"partition {self._partition} of {self._topic} is halted at offset {offset}: more than {MAX_SKIPS} records "
            f"in {SKIP_WINDOW_US // MINUTE_US} minutes made the worker fail",
            "see `stepstream deadletter list`; mend or roll back the worker and restart it: it goes on by itself. "
            f"To skip such records all the same: `stepstream deadletter resume {self._topic}/{self._partition}`",
        )

    def resumed(self, offset: int, now_us: int) -> Output:
        """The finding that ends the alert: the record at which the partition had halted was processed, or is skipped."""
        return self._finding(
            "resolved",
            offset,
            now_us,
            f"partition {self._partition} of {self._topic} goes on at offset {offset}",
            "",
        )

    def _finding(
        self, state: FindingState, offset: int, now_us: int, message: str, detail: str
    ) -> Output:
        what = "halt" if state == "firing" else "resume"
        finding = FindingStruct(
            finding_id=derived_id(what, self._topic, self._partition, offset),
            state=state,
            time=now_us,
            project="stepstream",
            alert="partition-halted",
            rule="poison",
            severity="critical",
            subject=f"{self._topic}/{self._partition}",
            value=float(MAX_SKIPS),
            unit="count",
            message=message,
            detail=detail,
        )
        return Output("findings", b"stepstream", msgspec.json.encode(finding))

    def _note(self, note: Note) -> Output:
        name = "pardon" if note.offset == PARDON else str(note.offset)
        key = KEY_PREFIX + f"{self._topic}|{self._partition}|{name}".encode()
        return Output(self._ledger_topic, key, msgspec.json.encode(note), partition=self._partition)
