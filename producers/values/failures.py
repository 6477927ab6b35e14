"""Status, type and message of a step that an exception ended."""

from __future__ import annotations

from typing import Final

from stepstream.producers.values.inspection import mro_of, simple_name, type_name
from stepstream.producers.values.known_types import exception_text
from stepstream.producers.values.plain import label

# By name: trio and concurrent.futures are not imported for the comparison.
_CANCELLED: Final = frozenset({"CancelledError", "Cancelled", "KeyboardInterrupt", "GeneratorExit"})
# Twice the limit of ``accept``, so that redaction sees a secret across the cut.
_MESSAGE_CHARS: Final = 8_192


def cancelled(error: BaseException) -> bool:
    """True if the exception is a cancellation and not a failure.

    Cancellations are those of asyncio, trio and futures, Ctrl-C, and a closed generator.
    """
    return any(simple_name(kind) in _CANCELLED for kind in mro_of(type(error)))


def type_of(error: BaseException) -> str:
    """The exception's class, with its module unless that is builtins or ``__main__``."""
    return type_name(type(error))


def message_of(error: BaseException) -> str:
    """The exception's arguments or attributes as text; its class if it has neither.

    Its ``__str__`` is not called.
    """
    return exception_text(error, _MESSAGE_CHARS, label) or simple_name(type(error))
