"""The only functions that write to standard output and standard error.

Names and texts come from agents, so control characters are replaced and markup is not interpreted.
JSON is escaped instead (``schemas.printable.escaped_json``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepstream.common.links import NOWHERE, Links, hyperlinked, with_addresses
from stepstream.schemas.printable import escaped_json, printable

if TYPE_CHECKING:
    from rich.console import Console


_links = NOWHERE


def link_to(links: Links) -> None:
    """From now on printed lines link the runs and alerts that they name."""
    global _links
    _links = links


def links() -> Links:
    """Where the ids of printed lines link to."""
    return _links


def echo(*lines: object) -> None:
    """Print lines on standard output."""
    _write(sys.stdout, (_linked(sys.stdout, line) for line in lines))


def remark(*lines: object) -> None:
    """Print lines on standard error: notes that are not part of the output."""
    _write(sys.stderr, (_linked(sys.stderr, line) for line in lines))


def _linked(stream: Any, given: object) -> str:
    """The text without control characters, its ids linked."""
    text = printable(str(given))
    shape = hyperlinked if stream is not None and stream.isatty() else with_addresses
    lines = text.split("\n")
    return "\n".join(shape(line, found) if (found := _links.of(line)) else line for line in lines)


def echo_csv(text: str) -> None:
    """Print rows of CSV on standard output, without links in them."""
    _write(sys.stdout, (printable(text),))


def echo_json(text: str) -> None:
    """Print JSON on standard output, with control characters escaped."""
    _write(sys.stdout, (escaped_json(text),))


def write_bytes(data: bytes) -> None:
    """Write bytes on standard output; on a terminal as printable text."""
    if sys.stdout.isatty():
        _write(sys.stdout, (printable(data.decode("utf-8", "replace")).rstrip("\n"),))
    else:
        sys.stdout.buffer.write(data)


def console(*, stderr: bool = False, **options: Any) -> Console:
    """A rich console without markup in strings and without control characters in its output."""
    from stepstream.common.console import SafeConsole

    return SafeConsole(stderr=stderr, **options)


def _write(stream: Any, lines: Iterable[str]) -> None:
    # pythonw and some services have no standard streams.
    if stream is None:
        return
    tolerate(stream)
    stream.write("".join(f"{line}\n" for line in lines))
    stream.flush()


def tolerate(stream: Any) -> None:
    """Let the stream replace characters that its encoding does not have."""
    if stream is not None and hasattr(stream, "reconfigure") and stream.errors == "strict":
        stream.reconfigure(errors="replace")
