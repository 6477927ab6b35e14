"""Serves recorded calls in place of the outside, and names the first call that differs."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.producers.recordings.boundary import CallStep, Pieces
from stepstream.producers.recordings.recorder import end_of
from stepstream.producers.recordings.served_stream import ServedStream
from stepstream.producers.recordings.values import (
    ValueLost,
    decode,
    decode_error,
    encode,
    redacted,
)
from stepstream.schemas.printable import printable
from stepstream.schemas.recording import RecordedCall, Recording, key_of
from stepstream.schemas.redaction import redacted_value

MAX_SHOWN: Final = 80
_LIVE_KINDS: Final = {"models": ("llm_call",), "tools": ("tool_call", "retrieval")}


class ReplayDiverged(BaseException):
    """The replayed program made a call that was not recorded.

    Not an ``Exception``: handlers of an agent for failing tools must not hide it.
    """


@dataclass(frozen=True)
class Rules:
    """Which calls are made instead of served. None of them: a strict replay."""

    live: frozenset[str] = frozenset()
    """``models``, ``tools``."""
    swap: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Functions that are called in the place of tools, by the tool's name."""
    until: int | None = None
    """Calls after the one of this number are made."""

    @property
    def is_strict(self) -> bool:
        return not self.live and not self.swap and self.until is None


class Player:
    """Serves the calls of one recording. A call is found by its name, arguments and repetition."""

    def __init__(self, recording: Recording, rules: Rules | None = None) -> None:
        self._recording = recording
        self._rules = rules or Rules()
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[RecordedCall]] = defaultdict(deque)
        self._inside: dict[int, list[RecordedCall]] = defaultdict(list)
        for call in recording.calls:
            self._waiting[call.key].append(call)
            self._inside[call.inside].append(call)
        self._left = {call.number: call for call in recording.calls}
        self.redact: Callable[[str], str] | None = None
        """The program's own redaction, as it was applied when the run was recorded."""
        self.calls = 0
        """Calls that the program has made so far."""
        self.made_live = 0
        self.divergence = ""
        self._end: tuple[str | None, str] | None = None

    # --- what the program's functions call ---

    def run_began(self, run: Any) -> None:
        """Nothing: the run is recorded as its steps."""

    def run_ended(self, run: Any, error: BaseException | None) -> None:
        """Keep how the first root ended, which ``ended`` compares."""
        if self._end is None:
            self._end = end_of(run, error, self.redact)

    def call(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        found = self._next(step, arguments, function)
        if not isinstance(found, RecordedCall):
            return found()
        return self._result(found)

    async def acall(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        found = self._next(step, arguments, function)
        if not isinstance(found, RecordedCall):
            made = found()
            return await made if hasattr(type(made), "__await__") else made
        return self._result(found)

    def stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> Generator[Any, Any, Any]:
        found = self._next(step, arguments, function)
        if not isinstance(found, RecordedCall):
            return (yield from found())
        return (yield from self._pieces_of(found))

    async def astream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> AsyncGenerator[Any, Any]:
        found = self._next(step, arguments, function)
        if not isinstance(found, RecordedCall):
            async for piece in found():
                yield piece
            return
        for piece in self._pieces_of(found):
            yield piece

    def client_stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> tuple[Any, Pieces | None]:
        found = self._next(step, arguments, function)
        if not isinstance(found, RecordedCall):
            return found(), None
        if "chunks" not in found.outcome:
            self._result(found)  # the request failed: it raises here, and not while it is read
        return ServedStream(self._pieces_of(found)), None

    # --- the end ---

    def ended(self) -> str:
        """The divergence, if any: an earlier one, a call that is missing, or another end."""
        output, error = self._end or (None, "")
        if self.divergence or not self._rules.is_strict:
            return self.divergence
        missing = next(iter(self._left.values()), None)
        if missing is not None:
            self.divergence = (
                f"the run ended without call {missing.number}, {missing.name}, which was recorded"
            )
        elif error != self._recording.error:
            wanted = self._recording.error or "no error"
            self.divergence = f"the run ended with {error or 'no error'}; recorded: {wanted}"
        elif None not in (output, self._recording.output) and output != self._recording.output:
            self.divergence = (
                f"all calls are equal, but the answer is {_shown(output)}; "
                f"recorded: {_shown(self._recording.output)}"
            )
        return self.divergence

    # --- inside ---

    def _next(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> RecordedCall | Callable[[], Any]:
        """The recorded call, or the function to be called. Raises ``ReplayDiverged``."""
        with self._lock:
            if self.divergence:
                raise ReplayDiverged(self.divergence)
            given = redacted(encode(arguments), self.redact)
            name = redacted_value(step._name)
            waiting = self._waiting.get(key_of(step._kind, name, given))
            if self._is_live(step, waiting):
                return self._live(step, arguments, function, waiting)
            if waiting:
                self.calls += 1
                found = waiting.popleft()
                self._served(found)
                return found
            self.divergence = self._difference(step._kind, name, given)
            raise ReplayDiverged(self.divergence)

    def _is_live(self, step: CallStep, waiting: deque[RecordedCall] | None) -> bool:
        rules = self._rules
        if step._name in rules.swap:
            return True
        if any(step._kind in _LIVE_KINDS[one] for one in rules.live):
            return True
        if rules.until is None:
            return False
        return not waiting or waiting[0].number > rules.until

    def _live(
        self,
        step: CallStep,
        arguments: object,
        function: Callable[[], Any],
        waiting: deque[RecordedCall] | None,
    ) -> Callable[[], Any]:
        self.calls += 1
        self.made_live += 1
        if waiting:
            # Alone: what was called inside it is called again, and found by itself.
            self._left.pop(waiting.popleft().number, None)
        other = self._rules.swap.get(step._name)
        if other is None:
            return function
        named = arguments if isinstance(arguments, dict) else {}
        return (lambda: other(**named)) if named else (lambda: other(arguments))

    def _served(self, call: RecordedCall) -> None:
        """The call, and what was called inside it, will not be made again."""
        self._left.pop(call.number, None)
        for one in self._inside.get(call.number, ()):
            waiting = self._waiting.get(one.key)
            if waiting and one in waiting:
                waiting.remove(one)
            self._served(one)

    def _result(self, call: RecordedCall) -> Any:
        if "error" in call.outcome:
            raise decode_error(call.outcome["error"])
        return self._decoded(call, call.outcome.get("result"))

    def _pieces_of(self, call: RecordedCall) -> Generator[Any, Any, Any]:
        for piece in call.outcome.get("chunks", ()):
            yield self._decoded(call, piece)
        return self._result(call)

    def _decoded(self, call: RecordedCall, encoded: Any) -> Any:
        try:
            return decode(encoded)
        except ValueLost as error:
            self.divergence = f"call {call.number}, {call.name}, cannot be served: {error}"
            raise ReplayDiverged(self.divergence) from None

    def _difference(self, kind: str, name: str, given: Any) -> str:
        place = f"call {self.calls + 1}, {name}"
        same = [call for call in self._left.values() if (call.kind, call.name) == (kind, name)]
        if not same:
            made = any((call.kind, call.name) == (kind, name) for call in self._recording.calls)
            what = "no further call of it" if made else "no call of it"
            following = next(iter(self._left.values()), None)
            wanted = f"; the next recorded call is {following.name}" if following else ""
            return f"{place}: the recording has {what}{wanted}"
        if same[0].step_id:
            place += f" (recorded step {same[0].step_id})"
        return f"{place}: {difference(same[0].arguments, given)}"


def difference(recorded: Any, given: Any, name: str = "") -> str:
    """The first difference of two encoded values, in words."""
    if isinstance(recorded, dict) and isinstance(given, dict):
        for key in [*recorded, *(key for key in given if key not in recorded)]:
            path = f"{name}.{key}" if name else str(key)
            if key not in given:
                return f"argument {path} is missing; recorded: {_shown(recorded[key])}"
            if key not in recorded:
                return f"argument {path} is {_shown(given[key])}; it was not recorded"
            if recorded[key] != given[key]:
                return difference(recorded[key], given[key], path)
    if isinstance(recorded, list) and isinstance(given, list):
        for place, (one, other) in enumerate(zip(recorded, given, strict=False)):
            if one != other:
                return difference(one, other, f"{name}.{place}" if name else str(place))
        if len(recorded) != len(given):
            subject = f"argument {name}" if name else "the list of arguments"
            return f"{subject} has {len(given)} entries; recorded: {len(recorded)}"
    subject = f"argument {name}" if name else "the argument"
    return f"{subject} is {_shown(given)}; recorded: {_shown(recorded)}"


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
