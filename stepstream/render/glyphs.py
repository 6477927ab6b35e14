"""The characters of a drawing: one set for terminals that can, one of plain ASCII."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Every sign takes one cell, branches two."""

    failed: str
    cancelled: str
    running: str
    evidence: str
    bar: str
    open_bar: str
    tee: str
    corner: str
    pipe: str
    ellipsis: str
    dot: str
    arrow: str


UNICODE: Final = Glyphs(
    failed="✗",
    cancelled="⊘",
    running="▸",
    evidence="!",
    bar="█",
    open_bar="░",
    tee="├╴",
    corner="└╴",
    pipe="│ ",
    ellipsis="…",
    dot="·",
    arrow="→",
)
ASCII: Final = Glyphs(
    failed="x",
    cancelled="-",
    running=">",
    evidence="!",
    bar="#",
    open_bar=".",
    tee="|-",
    corner="`-",
    pipe="| ",
    ellipsis="~",
    dot="-",
    arrow=">",
)


def glyphs_for(encoding: str | None) -> Glyphs:
    """The symbols that the encoding of an output has."""
    try:
        "✗▸█░├╴→…".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
