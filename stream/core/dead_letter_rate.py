"""An alert when too many records of a partition are dead-lettered in one minute of its log time.

Nothing stops because of it. Whether the rate is exceeded is noted on Kafka next to the partition's
``PoisonLedger``, so that a restart neither forgets the alert nor raises it twice. On the wire the
note and its counter are called a fuse.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stepstream.schemas.alert import FindingState
from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.poison import LogTime

KEY_PREFIX: Final = "!fuse|"


class Note(msgspec.Struct):
    """``since_us`` is the beginning of the minute in which the rate was first exceeded, 0 once it
    no longer is.
    """

    since_us: LogTime
    at_us: LogTime


_decode = msgspec.json.Decoder(Note).decode


class DeadLetterRate:
    """The rate of one partition. ``limit`` is records a minute; 0 means that there is none."""

    def __init__(self, topic: str, partition: int, ledger_topic: str, limit: int) -> None:
        """``topic`` has the records, ``ledger_topic`` the notes; names without prefix."""
        self._subject = f"{topic}/{partition}"
        self._topic = topic
        self._partition = partition
        self._ledger_topic = ledger_topic
        self._limit = limit
        self._minute_us = 0
        self._count = 0
        self._since_us = 0

    @property
    def is_exceeded(self) -> bool:
        return self._since_us > 0

    @property
    def name(self) -> str:
        """The name of its note in a ``StateIndex``."""
        return f"{KEY_PREFIX}{self._topic}|{self._partition}"

    @property
    def key(self) -> bytes:
        """The key of its note."""
        return self.name.encode()

    def restore(self, value: bytes, latest_us: int = MAX_TIME_US) -> int:
        """Apply a note that was read. Returns its log time; 0 where the rate is not exceeded and
        the note may be forgotten.

        Raises ``ValueError`` for a note of a time after ``latest_us``: the alert would last until
        then.
        """
        note = _decode(value)
        if max(note.at_us, note.since_us) > latest_us:
            raise ValueError(f"at_us is later than the record itself: {note.at_us}")
        self._since_us, self._minute_us = note.since_us, note.at_us - note.at_us % MINUTE_US
        return note.at_us if note.since_us else 0

    def refused(self, count: int, now_us: int) -> list[Output]:
        """``count`` more records were dead-lettered at this log time. Returns what to send."""
        out = self.passed(now_us)
        self._count += count
        if not self._limit or self._count <= self._limit or self.is_exceeded:
            return out
        self._since_us = self._minute_us
        message = f"more than {self._limit} records a minute of {self._subject} are refused"
        detail = (
            "`stepstream deadletter list` shows them with the reason; fix the sender, then send"
            " them again with `stepstream deadletter replay`"
        )
        return [*out, self._note(now_us), self._finding("firing", now_us, message, detail)]

    def passed(self, now_us: int) -> list[Output]:
        """Log time has reached ``now_us``. Returns what is to be sent: after a whole minute within
        the limit the alert ends.
        """
        minute_us = now_us - now_us % MINUTE_US
        if minute_us <= self._minute_us:
            return []
        before, count = self._minute_us, self._count
        self._minute_us, self._count = minute_us, 0
        was_within_limit = before > self._since_us and count <= self._limit
        if not self.is_exceeded or not (was_within_limit or minute_us - before > MINUTE_US):
            return []
        finding = self._finding(
            "resolved", now_us, f"records of {self._subject} are accepted again", ""
        )
        self._since_us = 0
        return [finding, self._note(now_us)]

    def _finding(self, state: FindingState, now_us: int, message: str, detail: str) -> Output:
        finding = pipeline_finding(
            "dead-letter-rate",
            "dead_letter_rate",
            self._subject,
            message,
            now_us,
            names=("fuse", self._topic, self._partition, self._since_us, state),
            state=state,
            value=float(self._count),
            threshold=float(self._limit),
            unit="count",
            detail=detail,
        )
        return Output("findings", b"stepstream", msgspec.json.encode(finding))

    def _note(self, now_us: int) -> Output:
        note = msgspec.json.encode(Note(self._since_us, now_us))
        return Output(self._ledger_topic, self.key, note, partition=self._partition)
