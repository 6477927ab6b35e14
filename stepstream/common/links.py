"""Links from the runs and alerts that printed lines name to their pages in the console.

A terminal gets hyperlinks (OSC 8), which change nothing of what is seen; a file or a pipe gets the
address at the end of the line. An address never contains a token: the page asks for a session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_ID: Final = r"[0-9a-f]{8,32}(?![0-9a-zA-Z-])"
# After these words an id is that of a run, or of an alert. Several may follow one another.
_NAMED: Final = re.compile(
    r"\b(?P<kind>run|runs|trace|trace_id|stop|pause|resume|approve|alert|alerts show|alert_id|ack)"
    rf"[:=]?\s+(?P<ids>{_ID}(?:,?\s+{_ID})*)"
)
_EACH: Final = re.compile(_ID)
_ALERTS: Final = ("alert", "alerts show", "alert_id", "ack")
MOST_ADDRESSES: Final = 3
"""A line without hyperlinks ends with this many addresses at most."""


@dataclass(frozen=True)
class Link:
    """A part of a line and the page that it names."""

    start: int
    end: int
    address: str


def in_line(line: str, base: str) -> Iterator[Link]:
    """The ids of runs and alerts in a line, with their pages below ``base``."""
    for named in _NAMED.finditer(line):
        folder = "alerts" if named["kind"] in _ALERTS else "runs"
        for one in _EACH.finditer(line, *named.span("ids")):
            yield Link(*one.span(), f"{base}/{folder}/{one[0]}")


class Links:
    """Where links go. ``find`` is called once, when the first line is printed that has an id."""

    def __init__(self, find: Callable[[], str]) -> None:
        self._find = find
        self._base: str | None = None

    def of(self, line: str) -> list[Link]:
        """The links of a line; none where there is no console to link to."""
        if _NAMED.search(line) is None:
            return []
        return list(in_line(line, self.base)) if self.base else []

    @property
    def base(self) -> str:
        """The console's address without a slash at its end; empty without one."""
        if self._base is None:
            self._base = self._find().rstrip("/")
        return self._base


NOWHERE: Final = Links(lambda: "")


def hyperlinked(line: str, links: list[Link]) -> str:
    """The line with its ids as hyperlinks for a terminal."""
    for link in reversed(links):
        shown = line[link.start : link.end]
        marked = f"\x1b]8;;{link.address}\x1b\\{shown}\x1b]8;;\x1b\\"
        line = f"{line[: link.start]}{marked}{line[link.end :]}"
    return line


def with_addresses(line: str, links: list[Link]) -> str:
    """The line with the addresses at its end."""
    addresses = list(dict.fromkeys(link.address for link in links))[:MOST_ADDRESSES]
    return "  ".join([line, *addresses])
