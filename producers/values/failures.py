"""What an exception says about a step."""

from __future__ import annotations

from typing import Final

from stepstream.producers.values.inspection import mro_of, simple_name, type_name
from stepstream.producers.values.known_types import exception_text
from stepstream.producers.values.plain import label

_CANCELLED: Final = frozenset({"CancelledError", "Cancelled", "KeyboardInterrupt", "GeneratorExit"})
_MESSAGE_CHARS: Final = 8_192


def cancelled(error: BaseException) -> bool:
    """Whether somebody called the step off, rather than it failing: asyncio, trio and futures, Ctrl-C, a closed generator."""
    return any(simple_name(kind) in _CANCELLED for kind in mro_of(type(error)))


def type_of(error: BaseException) -> str:
    """The exception's class; with its module, unless it is built in or the program's own."""
    return type_name(type(error))


def message_of(error: BaseException) -> str:
    """What the exception says by its arguments or attributes, its class where it has none. Its ``__str__`` is not called."""
    return exception_text(error, _MESSAGE_CHARS, label) or simple_name(type(error))
