"""Assembles tool calls that arrive in pieces."""

from __future__ import annotations

from typing import Any

from stepstream.producers.responses.answer import ToolCall
from stepstream.producers.responses.fields import is_a, parsed, whole_number


class CallPieces:
    """The calls of one streamed answer, in the order in which they began.

    Clients mark pieces by id, by index, or not at all. A new id begins a call, unless it comes
    without a name for an index that has a call; a known id continues its call. Without an id, an
    index continues the newest call of that index; without both, a piece continues the previous
    call. A different name after arguments began begins a call, and so do arguments after complete
    ones.
    """

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._by_id: dict[str, ToolCall] = {}
        self._by_index: dict[int, ToolCall] = {}
        # The last piece of the arguments of each call, by the call's id().
        self._newest: dict[int, str] = {}

    def add(self, index: Any, identity: str, name: str, arguments: Any) -> None:
        """Add one piece of a call."""
        place = _place(index)
        call = self._continued(place, identity, name, arguments)
        if call is None:
            call = ToolCall("", "")
            self._calls.append(call)
        if identity:
            call.id = call.id or identity
            self._by_id[identity] = call
        if place is not None:
            self._by_index[place] = call
        # Some servers send the name in pieces, others repeat the whole name with every piece.
        call.name = name if name.startswith(call.name) else call.name + name
        if is_a(arguments, str):
            piece = str.__str__(arguments)
            call.arguments = call.arguments + piece if type(call.arguments) is str else piece
            if piece:
                self._newest[id(call)] = piece
        elif is_a(arguments, dict):
            call.arguments = parsed(arguments)

    def _continued(
        self, place: int | None, identity: str, name: str, arguments: Any
    ) -> ToolCall | None:
        """The call that a piece continues; None if it begins one."""
        if identity and identity in self._by_id:
            return self._by_id[identity]
        call = (
            self._by_index.get(place)
            if place is not None
            else (self._calls[-1] if self._calls else None)
        )
        if call is None:
            return None
        if (
            identity
            and call.id
            and (place is None or name or not call.name or _are_complete(call.arguments))
        ):
            return None
        if name and call.name and _begins_anew(arguments) and _are_complete(call.arguments):
            return None
        differs = bool(name) and bool(call.name) and name != call.name
        return (
            None
            if differs and (call.arguments or (place is None and not name.startswith(call.name)))
            else call
        )

    def complete(self) -> list[ToolCall]:
        """The calls with their parsed arguments.

        The arguments are all pieces together, or the last piece if it repeats those before.
        """
        for call in self._calls:
            made = parsed(call.arguments) if call.arguments else {}
            # Some clients send the complete arguments again at the end, so that all pieces together
            # are not JSON.
            if type(made) is str and is_a(newest := parsed(self._newest.get(id(call), "")), dict):
                made = newest
            call.arguments = made
        return self._calls


def _place(index: Any) -> int | None:
    """An index as a number; some clients write it as text or as a float."""
    if type(index) is int:
        return index
    if type(index) is float and index.is_integer():
        return int(index)
    return whole_number(index)


def _are_complete(arguments: Any) -> bool:
    return is_a(arguments, dict) or (arguments.endswith("}") and is_a(parsed(arguments), dict))


def _begins_anew(arguments: Any) -> bool:
    return is_a(arguments, dict) or (
        is_a(arguments, str) and str.__str__(arguments).lstrip().startswith("{")
    )
