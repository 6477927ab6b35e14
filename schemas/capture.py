"""Which contents are sent: by the kind of a step, and for which share of the runs.

Contents are inputs, outputs and the texts of documents. Everything else of a step is always sent.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.content_limits import EVERY_KIND, size_in_bytes

OFF: Final = 0
"""The limit of contents that are not sent; their sizes are."""

FULL: Final = sys.maxsize
"""No limit besides those of ``max_content_bytes`` and ``content_limits``."""

_WORDS: Final = {"on": FULL, "off": OFF}
_ENTRY: Final = re.compile(r"([a-z_]+|\*)=(\w[\w ]*)", re.ASCII)
_HASH_BITS: Final = 64


@dataclass(frozen=True)
class Capture:
    """Limits of contents in bytes: ``default``, and ``by_kind`` for kinds with their own.

    ``sample`` is the share of runs, from 0 to 1, whose contents are sent.
    """

    by_kind: Mapping[str, int] = field(default_factory=dict)
    default: int = FULL
    sample: float = 1.0

    @property
    def is_full(self) -> bool:
        """True if nothing is left out."""
        return self.default == FULL and self.sample >= 1 and not self.by_kind

    def limit(self, kind: str, trace_id: str) -> int:
        """Bytes of each content of a step: ``OFF``, ``FULL`` or a number."""
        if not is_sampled(trace_id, self.sample):
            return OFF
        return self.by_kind.get(kind, self.default)


def is_sampled(trace_id: str, share: float) -> bool:
    """Whether a run is in the share of runs whose contents are sent.

    By the first 8 bytes of the SHA-256 of the trace id, as a fraction of 2^64: every process that
    sends steps of the run decides alike.
    """
    if share >= 1:
        return True
    digest = hashlib.sha256(trace_id.encode()).digest()
    return int.from_bytes(digest[: _HASH_BITS // 8], "big") < share * (1 << _HASH_BITS)


def parse_capture(text: str, kinds: tuple[str, ...]) -> dict[str, int]:
    """Limits by kind of step of a text such as ``llm_call=off,tool_call=2KB,*=on``.

    ``*`` is every kind that is not named. Raises ``ValueError``.
    """
    limits: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} is not KIND=on, KIND=off or KIND=BYTES")
        kind, value = found[1], found[2]
        if kind != EVERY_KIND and kind not in kinds:
            raise ValueError(f"there is no kind {kind!r}: write * or one of {', '.join(kinds)}")
        limit = _WORDS.get(value)
        if limit is None:
            limit = size_in_bytes(value)
        if limit is None:
            raise ValueError(f"{entry!r}: write on, off or a size such as 500 or 2KB")
        limits[kind] = limit
    return limits
