"""Secrets out of everything that the SDK sends, and a hook of the program's own behind that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stepstream.producers.error_guard import internal_error
from stepstream.schemas.redaction import is_secret_name, without_secrets
from stepstream.schemas.secret_forms import REDACTED

__all__ = ["UNREADABLE", "Hook", "Redactor", "is_secret_name", "without_secrets"]

Hook = Callable[[str], str]

UNREADABLE: Final = "[withheld: the redact hook failed]"


class Redactor:
    """Takes secrets out of texts; ``hook``, if given, then changes each text further. Never raises."""

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook

    def text(self, text: str) -> str:
        """The text without its secrets."""
        return self._hooked(without_secrets(text))

    def named(self, name: str, value: str) -> str:
        """The value of a field called ``name``: all of it is secret where the name says so."""
        return REDACTED if value and is_secret_name(name) else self.text(value)

    def _hooked(self, text: str) -> str:
        if self._hook is None:
            return text
        try:
            changed = self._hook(text)
            if isinstance(changed, str):
                return changed
            raise TypeError(f"the redact hook returned {type(changed).__name__}, not str")
        except Exception as error:
            internal_error("redact", error)
            return UNREADABLE
