"""The recording of a run: every call to the outside that it made, so that it can be replayed.

One JSON object a line: a header, the calls in the order in which they ended, and an end with the
digest of the lines before it. ``producers.recordings`` writes and serves it. Values are in the form
of ``producers.recordings.values``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepstream.schemas.redaction import redacted_value

RECORDING_VERSION: Final = 1
MAX_CALLS: Final = 10_000
MAX_RECORDING_BYTES: Final = 64 * 1024 * 1024

Line = dict[str, Any]


class RecordingError(ValueError):
    """A recording that cannot be used; the message states where and why."""


@dataclass(frozen=True)
class RecordedCall:
    """One call: what it was called with, and what came of it."""

    number: int
    """In the order in which the calls began, from 1."""
    inside: int
    """The call in which it was made; 0: in none."""
    kind: str
    name: str
    arguments: Any
    outcome: Mapping[str, Any]
    """One of ``result``, ``chunks`` (of a stream, with ``result`` after it) and ``error``."""
    step_id: str = ""

    @property
    def key(self) -> str:
        """Equal for calls of the same function with the same arguments."""
        return key_of(self.kind, self.name, self.arguments)

    @property
    def is_redacted(self) -> bool:
        """Whether texts of its result were replaced when it was recorded."""
        return bool(self.outcome.get("redacted"))


@dataclass(frozen=True)
class Recording:
    """A complete recording of one run."""

    trace_id: str
    agent: str
    agent_version: str
    task: str
    input: Any
    calls: Sequence[RecordedCall]
    output: str | None
    error: str
    gaps: Sequence[str]
    """Why it cannot be replayed as a whole; empty if it can."""
    lines: Sequence[Line]


def written(line: Line) -> str:
    """The one form of a line, of which the digest is made."""
    # The order of keys is kept: a program may print a dictionary that a tool returned.
    return json.dumps(line, separators=(",", ":"))


def key_of(kind: str, name: str, arguments: Any) -> str:
    """Equal for calls of the same function with the same arguments, in recorded form."""
    return json.dumps([kind, name, arguments], sort_keys=True)


def header(
    trace_id: str, agent: str, agent_version: str, task: str, given: Any, started_us: int
) -> Line:
    """The first line."""
    return {
        "recording": RECORDING_VERSION,
        "trace_id": trace_id,
        "agent": agent,
        "agent_version": agent_version,
        "task": task,
        "input": given,
        "started_us": started_us,
    }


def end(calls: int, output: str | None, error: str, gaps: Sequence[str], digest: str) -> Line:
    """The last line."""
    return {
        "end": calls,
        "output": output,
        "error": error,
        "gaps": list(gaps),
        "sha256": digest,
    }


def parse_lines(name: str, text: str) -> list[Line]:
    """The lines of a file. Raises ``RecordingError``."""
    found = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"{name}, line {number}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise RecordingError(f"{name}, line {number}: not a JSON object")
        found.append(value)
    return found


def recording_of(name: str, lines: Sequence[Line]) -> Recording:
    """The recording in these lines, which is checked. Raises ``RecordingError``."""
    if not lines or "recording" not in lines[0]:
        raise RecordingError(f"{name}: not a recording; its first line has no field recording")
    first, last = lines[0], lines[-1]
    if first["recording"] != RECORDING_VERSION:
        raise RecordingError(
            f"{name}: version {first['recording']!r} of the format; this release reads version "
            f"{RECORDING_VERSION}: record the run again"
        )
    if "end" not in last:
        raise RecordingError(
            f"{name}: it has no end, because the run or its process had not ended normally"
        )
    digest = hashlib.sha256()
    for line in lines[:-1]:
        digest.update(f"{written(line)}\n".encode())
    if digest.hexdigest() != last.get("sha256"):
        raise RecordingError(
            f"{name}: damaged or edited: its contents do not have the digest in its last line"
        )
    for number, line in enumerate(lines, 1):
        if redacted_value(line) != line:
            raise RecordingError(
                f"{name}, line {number}: contains a secret, which recordings must not; delete the "
                "file, change the secret, and record the run again"
            )
    try:
        return _checked(first, lines[1:-1], last, lines)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"{name}: not a recording of this format: {error!r}") from None


def _checked(first: Line, calls: Sequence[Line], last: Line, lines: Sequence[Line]) -> Recording:
    return Recording(
        trace_id=str(first["trace_id"]),
        agent=str(first["agent"]),
        agent_version=str(first["agent_version"]),
        task=str(first["task"]),
        input=first["input"],
        calls=sorted(_calls(calls), key=lambda call: call.number),
        output=last["output"],
        error=str(last["error"]),
        gaps=tuple(map(str, last["gaps"])),
        lines=lines,
    )


def _calls(lines: Iterable[Line]) -> Iterator[RecordedCall]:
    seen = set()
    for line in lines:
        number = int(line["call"])
        if number in seen:
            raise ValueError(f"the call {number} stands twice")
        seen.add(number)
        yield RecordedCall(
            number=number,
            inside=int(line["in"]),
            kind=str(line["kind"]),
            name=str(line["name"]),
            arguments=line["arguments"],
            outcome=line["outcome"],
            step_id=str(line["step_id"]),
        )
