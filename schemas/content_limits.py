"""Limits of inputs and outputs by the kind of a step, from the setting ``content_limits``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_BYTES: Final = 1_048_576
"""The largest limit that can be set for one input or output."""

USUAL_BYTES: Final = 65_536
"""The limit at the worker and the sink for kinds without a limit of their own."""

USUAL_RECORD_BYTES: Final = 1_048_576
EVERY_KIND: Final = "*"

_UNITS: Final = {"": 1, "B": 1, "KB": 1_024, "MB": 1_048_576}
_ENTRY: Final = re.compile(r"([a-z_]+|\*)=([0-9]{1,9} ?(?:B|KB|MB|))", re.ASCII | re.IGNORECASE)
_SIZE: Final = re.compile(r"([0-9]{1,9}) ?(B|KB|MB|)", re.ASCII | re.IGNORECASE)


def size_in_bytes(text: str) -> int | None:
    """Bytes of a text such as ``256KB``; None for any other text."""
    found = _SIZE.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2].upper()]


def parse_content_limits(text: str, kinds: tuple[str, ...]) -> dict[str, int]:
    """Bytes by kind of step of a text such as ``llm_call=1MB,tool_call=256KB``.

    ``*`` stands for every kind that is not named. Raises ``ValueError``.
    """
    given: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} is not KIND=BYTES, such as llm_call=1MB")
        kind, size = found[1], size_in_bytes(found[2]) or 0
        if kind != EVERY_KIND and kind not in kinds:
            raise ValueError(f"there is no kind {kind!r}: write * or one of {', '.join(kinds)}")
        if size > MAX_BYTES:
            raise ValueError(f"{entry}: the largest limit is 1MB, {MAX_BYTES:,} bytes")
        given[kind] = size
    others = given.pop(EVERY_KIND, None)
    return given if others is None else {kind: given.get(kind, others) for kind in kinds}


def record_bytes(limits: Mapping[str, int]) -> int:
    """The largest record that holds an input and an output of the largest limit.

    JSON escapes make a text longer: twice its length leaves room for line ends and quotation marks.
    A record that is larger still is shortened by its producer.
    """
    largest = max([USUAL_BYTES, *limits.values()])
    return USUAL_RECORD_BYTES + 2 * 2 * (largest - USUAL_BYTES)
