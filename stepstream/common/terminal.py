"""Standard output and standard error: the one way by which text gets there.

Whatever is said here is made printable first, and is never read as markup: names and texts come from agents. JSON is escaped
where it is made (``schemas.printable.escaped_json``) and printed as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepstream.schemas.printable import escaped_json, printable

if TYPE_CHECKING:
    from rich.console import Console


def say(*lines: object) -> None:
    """Print lines on standard output."""
    _write(sys.stdout, (printable(str(line)) for line in lines))


def remark(*lines: object) -> None:
    """Print lines on standard error: what is not part of the answer."""
    _write(sys.stderr, (printable(str(line)) for line in lines))


def say_json(text: str) -> None:
    """Print JSON text on standard output: what would steer a terminal is escaped, so that it says the same."""
    _write(sys.stdout, (escaped_json(text),))


def write_bytes(data: bytes) -> None:
    """Write data on standard output: to a file or a pipe as it is, to a terminal as printable text."""
    if sys.stdout.isatty():
        _write(sys.stdout, (printable(data.decode("utf-8", "replace")).rstrip("\n"),))
    else:
        sys.stdout.buffer.write(data)


def console(*, stderr: bool = False, **options: Any) -> Console:
    """A console of rich that reads no markup in strings and prints nothing that would steer a terminal."""
    from stepstream.common.console import SafeConsole

    return SafeConsole(stderr=stderr, **options)


def _write(stream: Any, lines: Iterable[str]) -> None:
    if stream is None:
        return
    tolerate(stream)
    stream.write("".join(f"{line}\n" for line in lines))
    stream.flush()


def tolerate(stream: Any) -> None:
    """Let the stream replace what its encoding cannot say."""
    if stream is not None and hasattr(stream, "reconfigure") and stream.errors == "strict":
        stream.reconfigure(errors="replace")
