"""Records whose merging raises an exception: tried three times, then dead-lettered, and never too
many of them.

An exception while one record is merged stops the worker before anything is committed. (Exceptions
of detectors, timers and publishing do not: see ``contained_failures``.) The try is written to a
Kafka topic as a *note*, so that it survives the restart. After the third try the record is
*skipped*: it goes to the dead letter with the traceback. A bug that fails on every record must not
move the whole topic into the dead letter, so too many skips in a short time halt the partition
instead. A worker that starts on a halted partition tries its record once more: once the bug is
fixed, the partition continues by itself.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from stepstream.schemas.alert import FindingState
from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.core.outputs import Output

KEY_PREFIX: Final = b"!poison|"
# Three tries, so that a cause outside of the record (memory, a broker) does not cost a record; five
# skips in ten minutes, because single bad records are rare and a bug of the worker is not.
MAX_TRIES: Final = 3
MAX_SKIPS: Final = 5
SKIP_WINDOW_US: Final = 600_000_000
RESUME: Final = -1
"""The offset in the note that `stepstream deadletter resume` writes: records skipped before this
note was written are not counted any more.
"""


LEDGER_TOPICS: Final = {
    "steps": "state",
    "findings": "fleet",
    "usage": "fleet",
    "tasks": "taskstate",
}
"""The topic that has the notes about a topic's records, on the partition of the same number; names
without prefix.
"""


class ProcessingFailed(Exception):
    """Processing one record raised. ``note`` is to be sent before the worker stops."""

    def __init__(self, message: str, note: Output) -> None:
        super().__init__(message)
        self.note = note


LogTime = Annotated[int, msgspec.Meta(ge=0, lt=MAX_TIME_US)]


class Note(msgspec.Struct):
    """Tries at one record.

    ``at_us`` is the append time of the record in microseconds; ``skipped_at_us`` the same value
    once the record is skipped, 0 before.
    """

    offset: Annotated[int, msgspec.Meta(ge=-1, le=MAX_COUNT)]
    tries: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    traceback: str
    at_us: LogTime
    skipped_at_us: LogTime = 0


_decode = msgspec.json.Decoder(Note).decode


class PoisonLedger:
    """Tries and skips of one partition's records."""

    def __init__(self, topic: str, partition: int, ledger_topic: str) -> None:
        """``topic`` has the records, ``ledger_topic`` the notes; names without prefix."""
        self._topic = topic
        self._partition = partition
        self._ledger_topic = ledger_topic
        self._notes: dict[int, Note] = {}
        self._not_counted: set[int] = set()

    def owns(self, key: bytes) -> bool:
        """Whether a record of the ledger's topic is a note of this partition."""
        return key.startswith(KEY_PREFIX + f"{self._topic}|{self._partition}|".encode())

    def restore(self, value: bytes, latest_us: int = MAX_TIME_US) -> int:
        """Apply a note that was read; the last one of an offset counts.

        Returns the append time of the note's record; for a resume note that of the newest other
        note, 0 without any. Raises ``ValueError`` for what is no note, or one of a time after
        ``latest_us``.
        """
        note = _decode(value)
        if max(note.at_us, note.skipped_at_us) > latest_us:
            raise ValueError(
                f"the note on offset {note.offset} is of a time after {latest_us}: {note.at_us}"
            )
        if note.offset == RESUME:
            self._not_counted.update(n.offset for n in self._notes.values() if n.skipped_at_us)
            return max((n.at_us for n in self._notes.values()), default=0)
        self._notes[note.offset] = note
        return note.at_us

    @property
    def is_resumed(self) -> bool:
        """Whether the partition was resumed by a person after a halt."""
        return bool(self._not_counted)

    def resume_note(self) -> Output:
        """The note that lets a halted partition skip up to ``MAX_SKIPS`` more records."""
        return self._note(Note(RESUME, 0, "", 0))

    def failed(self, offset: int, at_us: int, traceback: str) -> Output:
        """Count a failed try. Returns the note to be acknowledged before the worker stops."""
        before = self._notes.get(offset)
        note = self._notes[offset] = Note(
            offset, (before.tries if before else 0) + 1, traceback[-8_000:], at_us
        )
        return self._note(note)

    def skip_note(self, offset: int) -> Note | None:
        """The note of a record that is to be skipped; None for one that is to be processed."""
        note = self._notes.get(offset)
        return note if note is not None and note.tries >= MAX_TRIES else None

    def recovered(self, offset: int) -> Output:
        """Return the note that resets the tries of a record that was processed after all.

        The record is then not skipped when it is read again. The offset must have a note.
        """
        note = self._notes[offset] = Note(offset, 0, "", self._notes[offset].at_us)
        return self._note(note)

    def skipped(self, offset: int, append_us: int) -> Output:
        """Return the note that a record with this append time is dead-lettered. The offset must
        have a note.
        """
        note = self._notes[offset]
        note.skipped_at_us = note.skipped_at_us or append_us
        return self._note(note)

    def __bool__(self) -> bool:
        return bool(self._notes)

    def too_many(self, append_us: int) -> bool:
        """Whether ``MAX_SKIPS`` records were skipped in the ten minutes of log time before.

        Then a defect of the worker is likely, and the partition must halt.
        """
        after_us = append_us - SKIP_WINDOW_US
        recent = (
            n
            for n in self._notes.values()
            if n.skipped_at_us > after_us and n.offset not in self._not_counted
        )
        return sum(1 for _ in recent) >= MAX_SKIPS

    def halted(self, offset: int, append_us: int) -> Output:
        """The finding about a halt; its id is the same after every restart."""
        return self._finding(
            "firing",
            offset,
            append_us,
            f"partition {self._partition} of {self._topic} is halted at offset {offset}: more than"
            f" {MAX_SKIPS} records in {SKIP_WINDOW_US // MINUTE_US} minutes made the worker fail",
            "see `stepstream deadletter list`; fix or roll back the worker and restart it: the"
            " partition then continues by itself. To skip such records instead:"
            f" `stepstream deadletter resume {self._topic}/{self._partition}`",
        )

    def resumed(self, offset: int, append_us: int) -> Output:
        """The finding that resolves the alert: the record at which the partition had halted was
        processed or is skipped.
        """
        return self._finding(
            "resolved",
            offset,
            append_us,
            f"partition {self._partition} of {self._topic} continues at offset {offset}",
            "",
        )

    def _finding(
        self, state: FindingState, offset: int, now_us: int, message: str, detail: str
    ) -> Output:
        what = "halt" if state == "firing" else "resume"
        finding = pipeline_finding(
            "partition-halted",
            "poison",
            f"{self._topic}/{self._partition}",
            message,
            now_us,
            names=(what, self._topic, self._partition, offset),
            state=state,
            severity="critical",
            value=float(MAX_SKIPS),
            unit="count",
            detail=detail,
        )
        return Output("findings", b"stepstream", msgspec.json.encode(finding))

    def _note(self, note: Note) -> Output:
        # "pardon" is the name in records of the first release.
        name = "pardon" if note.offset == RESUME else str(note.offset)
        key = KEY_PREFIX + f"{self._topic}|{self._partition}|{name}".encode()
        return Output(self._ledger_topic, key, msgspec.json.encode(note), partition=self._partition)
