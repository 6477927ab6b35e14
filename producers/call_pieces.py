"""Tool calls that come piece by piece, put together."""

from __future__ import annotations

from typing import Any

from stepstream.producers.answer import ToolCall
from stepstream.producers.fields import is_a, parsed


class CallPieces:
    """The calls of one streamed answer, in the order in which they began.

    An id that was not seen yet begins a call; one that was seen continues its call. Without an id, an index continues the
    newest call of that index, and without either the piece belongs to the call before it. A name that differs once
    arguments have come begins a call; before that it is a piece of the name, and the same name again is nothing new.
    """

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._by_id: dict[str, ToolCall] = {}
        self._by_index: dict[int, ToolCall] = {}

    def add(self, index: Any, identity: str, name: str, arguments: Any) -> None:
        """One piece."""
        place = index if is_a(index, int) and not is_a(index, bool) else None
        call = self._continued(place, identity, name)
        if call is None:
            call = ToolCall("", "")
            self._calls.append(call)
        if identity:
            call.id = identity
            self._by_id[identity] = call
        if place is not None:
            self._by_index[place] = call
        if name and name != call.name:
            call.name += name
        if is_a(arguments, str):
            call.arguments = call.arguments + arguments if is_a(call.arguments, str) else arguments
        elif is_a(arguments, dict):
            call.arguments = dict(arguments)

    def _continued(self, place: int | None, identity: str, name: str) -> ToolCall | None:
        """The call that a piece continues; None where it begins one."""
        if identity and identity in self._by_id:
            return self._by_id[identity]
        call = self._by_index.get(place) if place is not None else (self._calls[-1] if self._calls else None)
        if call is None or (identity and call.id):
            return None
        differs = bool(name) and bool(call.name) and name != call.name
        return None if differs and (call.arguments or place is None) else call

    def complete(self) -> list[ToolCall]:
        """The calls, with what their arguments say."""
        for call in self._calls:
            call.arguments = parsed(call.arguments) if call.arguments else {}
        return self._calls
