"""The dead letter's fuse: too many records refused in one minute of a partition's log time raise an alert.

It stops nothing: what is refused is kept in the dead letter and the rest goes on. Whether it has blown is noted beside the
partition's poison, so that a restart neither forgets the alert nor raises it twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stepstream.schemas.alert import FindingState, FindingStruct
from stepstream.schemas.ids import derived_id
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.poison import LogTime

KEY_PREFIX: Final = "!fuse|"


class Blown(msgspec.Struct):
    """The note: ``since_us`` is the beginning of the minute in which it blew, 0 once it is whole again."""

    since_us: LogTime
    at_us: LogTime


_decode = msgspec.json.Decoder(Blown).decode


class Fuse:
    """One partition's. ``limit`` 0: it never blows."""

    def __init__(self, topic: str, partition: int, ledger_topic: str, limit: int) -> None:
        """``topic`` is where the records are, ``ledger_topic`` where notes are kept; names without prefix."""
        self._subject = f"{topic}/{partition}"
        self._topic = topic
        self._partition = partition
        self._ledger_topic = ledger_topic
        self._limit = limit
        self._minute_us = 0
        self._count = 0
        self._since_us = 0

    @property
    def is_blown(self) -> bool:
        return self._since_us > 0

    @property
    def name(self) -> str:
        """What its note is kept under."""
        return f"{KEY_PREFIX}{self._topic}|{self._partition}"

    @property
    def key(self) -> bytes:
        """Of its note."""
        return self.name.encode()

    def restore(self, value: bytes, latest_us: int = MAX_TIME_US) -> int:
        """Take over a note that was read, of a time until ``latest_us``: it would hold until then.

        Returns its log time; 0 where it is whole and the note may be forgotten. Raises ``ValueError`` where it cannot be.
        """
        note = _decode(value)
        if max(note.at_us, note.since_us) > latest_us:
            raise ValueError(f"at_us is no time until then: {note.at_us}")
        self._since_us, self._minute_us = note.since_us, note.at_us - note.at_us % MINUTE_US
        return note.at_us if note.since_us else 0

    def refused(self, count: int, now_us: int) -> list[Output]:
        """So many more records were refused at this log time. Returns what is to be sent."""
        out = self.passed(now_us)
        self._count += count
        if not self._limit or self._count <= self._limit or self.is_blown:
            return out
        self._since_us = self._minute_us
        message = f"more than {self._limit} records a minute of {self._subject} are refused"
        detail = "`stepstream deadletter list` shows them and why; mend who sends them, then replay what can be saved"
        return [*out, self._note(now_us), self._finding("firing", now_us, message, detail)]

    def passed(self, now_us: int) -> list[Output]:
        """Log time goes on. Returns what is to be sent: after a minute within the limit the alert is over."""
        minute_us = now_us - now_us % MINUTE_US
        if minute_us <= self._minute_us:
            return []
        before, count = self._minute_us, self._count
        self._minute_us, self._count = minute_us, 0
        calm = before > self._since_us and count <= self._limit
        if not self.is_blown or not (calm or minute_us - before > MINUTE_US):
            return []
        finding = self._finding(
            "resolved", now_us, f"records of {self._subject} are accepted again", ""
        )
        self._since_us = 0
        return [finding, self._note(now_us)]

    def _finding(self, state: FindingState, now_us: int, message: str, detail: str) -> Output:
        finding = FindingStruct(
            finding_id=derived_id("fuse", self._topic, self._partition, self._since_us, state),
            state=state,
            time=now_us,
            project="stepstream",
            alert="dead-letter-rate",
            rule="dead_letter_rate",
            severity="error",
            subject=self._subject,
            value=float(self._count),
            threshold=float(self._limit),
            unit="count",
            message=message,
            detail=detail,
        )
        return Output("findings", b"stepstream", msgspec.json.encode(finding))

    def _note(self, now_us: int) -> Output:
        note = msgspec.json.encode(Blown(self._since_us, now_us))
        return Output(self._ledger_topic, self.key, note, partition=self._partition)
