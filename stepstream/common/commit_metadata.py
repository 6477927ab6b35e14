"""The text that consumers commit next to an offset: one number, for the member of the group that
reads on from there.

All processes write one form, ``stepstream-PROCESS/2 NAME=NUMBER;``, and read the forms of earlier
releases, so that an upgrade in place continues where the old process stopped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = 2


class UnknownMetadata(Exception):
    """The metadata was written by a newer release, and ignoring it would lose or repeat data."""


@dataclass(frozen=True, slots=True)
class MetadataForm:
    """The metadata of one kind of process."""

    process: str
    number: str
    """What the number is, e.g. ``end``."""
    earlier: tuple[re.Pattern[str], ...] = ()
    """The forms of earlier releases, each with the number as its only group."""
    required: bool = False
    """Whether unknown text of the same process is an error; otherwise it counts as no metadata."""
    _current: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Everything after the semicolon is ignored: librdkafka copies metadata without the
        # terminating zero, and confluent-kafka then reads on into unrelated memory. Version 1 had
        # no semicolon for that reason.
        current = re.compile(rf"{self._prefix}{VERSION} {self.number}=([0-9]+);")
        object.__setattr__(self, "_current", current)

    @property
    def _prefix(self) -> str:
        return f"stepstream-{self.process}/"

    def encode(self, number: int) -> str:
        """The text to commit for a number that is not negative."""
        return f"{self._prefix}{VERSION} {self.number}={number};"

    def decode(self, metadata: str | None) -> int | None:
        """The number, or None where there is no metadata of this process.

        Raises ``UnknownMetadata`` for text of a newer release, if this form is required.
        """
        text = metadata or ""
        for form in (self._current, *self.earlier):
            if (found := form.match(text)) is not None:
                return int(found[1])
        if self.required and text.startswith(self._prefix):
            raise UnknownMetadata(
                f"the metadata {text!r} of a committed offset is of a newer release (this one reads"
                f" up to version {VERSION}): run the newer release until its batches are stored"
            )
        return None


WORKER: Final = MetadataForm(
    "worker",
    "state",
    # Version 1, "1;state=N", is left out: it has no end, so digits of unrelated memory may follow
    # the number.
    (re.compile(r"2;state=([0-9]+);"),),
)
"""The lowest offset of the state topic that a restart has to read.

Without it the whole topic is read.
"""

SINK: Final = MetadataForm(
    "sink", "end", (re.compile(r"stepstream-sink/1 end=([0-9]+)"),), required=True
)
"""The last offset of the batch that is being inserted; the batch begins at the committed offset."""

NOTIFIER: Final = MetadataForm("notify", "deliveries", (re.compile(r"n1:([0-9]+);"),))
"""The lowest offset of the deliveries topic that a restart has to read.

Without it the whole topic is read.
"""
