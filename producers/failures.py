"""What an exception says about a step."""

from __future__ import annotations

from typing import Final

_CANCELLED: Final = frozenset({"CancelledError", "Cancelled", "KeyboardInterrupt", "GeneratorExit"})
_MESSAGE_CHARS: Final = 8_192


def cancelled(error: BaseException) -> bool:
    """Whether somebody called the step off, rather than it failing: asyncio, trio and futures, Ctrl-C, a closed generator."""
    return any(kind.__name__ in _CANCELLED for kind in type(error).__mro__)


def type_of(error: BaseException) -> str:
    """The exception's class; with its module, unless it is built in or the program's own."""
    kind = type(error)
    module = kind.__module__
    return kind.__name__ if module in ("builtins", "__main__") else f"{module}.{kind.__name__}"


def message_of(error: BaseException) -> str:
    """The exception in words; its class where it has none or cannot say them."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return (text or type(error).__name__)[:_MESSAGE_CHARS]
