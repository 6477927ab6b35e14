"""Redaction of every text that the SDK sends: known secret forms, then a hook of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stepstream.producers.sdk_log import internal_error
from stepstream.schemas.redaction import is_secret_name, without_secrets
from stepstream.schemas.secret_forms import REDACTED

__all__ = ["UNREADABLE", "Hook", "Redactor", "is_secret_name", "without_secrets"]

Hook = Callable[[str], str]

UNREADABLE: Final = "[withheld: the redact hook failed]"


class Redactor:
    """Redacts texts. ``hook``, if given, is applied to each redacted text. Never raises.

    A text on which the hook fails is withheld.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook

    def text(self, text: str) -> str:
        """The redacted text."""
        return self._hooked(without_secrets(text))

    def named(self, name: str, value: str) -> str:
        """The redacted value of a field; all of it is redacted if ``name`` is that of a secret."""
        return REDACTED if value and is_secret_name(name) else self.text(value)

    def _hooked(self, text: str) -> str:
        if self._hook is None:
            return text
        try:
            # After the built-in redaction, so that a faulty hook cannot undo it.
            changed = self._hook(text)
            if isinstance(changed, str):
                return changed
            raise TypeError(f"the redact hook returned {type(changed).__name__}, not str")
        except Exception as error:
            internal_error("redact", error)
            return UNREADABLE
