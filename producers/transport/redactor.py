"""Redaction of every text that the SDK sends: known secret forms, then a hook of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stepstream.common.functions import load_function
from stepstream.producers.sdk_log import internal_error
from stepstream.schemas.redaction import is_secret_name, without_secrets
from stepstream.schemas.secret_forms import REDACTED

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

__all__ = ["UNHOOKED", "UNREADABLE", "Hook", "Redactor", "is_secret_name", "without_secrets"]

Hook = Callable[[str], str]

UNREADABLE: Final = "[withheld: the redact hook failed]"
UNHOOKED: Final = frozenset({"project", "environment"})
"""Fields that a hook does not get: keys and policies belong to them, and the program chooses them.
"""

# Names of agents, tools and models repeat: each is redacted once.
_MOST_LABELS: Final = 8_192


def hook_of(settings: Settings) -> Hook | None:
    """The function that the setting ``redact_hook`` names. Raises ``ValueError``."""
    return load_function(settings.redact_hook, "redact_hook") if settings.redact_hook else None


class Redactor:
    """Redacts texts. ``hook``, if given, is applied to each redacted text. Never raises.

    A text on which the hook fails is withheld.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook
        self._labels: dict[tuple[str, bool], str] = {}

    def text(self, text: str) -> str:
        """The redacted text."""
        return self._hooked(without_secrets(text))

    def label(self, text: str, *, hooked: bool = True) -> str:
        """The redacted text of a short field, remembered. ``hooked=False``: without the hook."""
        found = self._labels.get((text, hooked))
        if found is None:
            if len(self._labels) >= _MOST_LABELS:
                self._labels.clear()
            found = self._labels[text, hooked] = (
                self.text(text) if hooked else without_secrets(text)
            )
        return found

    def named(self, name: str, value: str) -> str:
        """The redacted value of a field; all of it is redacted if ``name`` is that of a secret."""
        return REDACTED if value and is_secret_name(name) else self.text(value)

    def hooked(self, text: str) -> str:
        """The text after the hook alone, for texts that are redacted already."""
        return self._hooked(text)

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
