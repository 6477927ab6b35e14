"""Secrets out of a step's texts, at a price that a gateway can pay.

Looking for every form in every text costs 38 us a span, more than all other work on it together.
All texts of a step are searched at once for what every secret contains; only where something was
found is each text searched thoroughly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from stepstream.schemas.redaction import is_secret_name, without_secrets
from stepstream.schemas.secret_forms import (
    HEADERS,
    NAMES,
    REDACTED,
    TEXT_FORMS,
    key_starts,
)
from stepstream.schemas.step import AnyStep, DocumentStruct

_HINTS: Final = (*(form.hint for form in TEXT_FORMS), *(form.hint for form in HEADERS), ".eyJ")
_STEMS: Final = tuple(NAMES)


def may_hold_secrets(text: str) -> bool:
    """Whether a text holds anything that ``without_secrets`` might replace; false only where it
    holds nothing.
    """
    for hint in _HINTS:
        if hint in text:
            return True
    if "://" in text and "@" in text:
        return True
    low = text.lower()
    for stem in _STEMS:
        if stem in low:
            return True
    return bool(key_starts(text))


_is_secret = lru_cache(maxsize=8_192)(is_secret_name)


def redact(step: AnyStep) -> None:
    """Take secrets out of everything in a step that may hold any."""
    texts = [step.input, step.output, step.error_message, step.name]
    texts += step.attributes.values()
    texts += [document.content for document in step.documents]
    # Values are redacted by the attribute's name (password, api_key ...): few attributes have one.
    for name in step.attributes:
        if _is_secret(name):
            step.attributes[name] = REDACTED
    if not may_hold_secrets("\n".join(texts)):
        return
    step.name = without_secrets(step.name)
    step.input = without_secrets(step.input)
    step.output = without_secrets(step.output)
    step.error_message = without_secrets(step.error_message)
    for name, value in step.attributes.items():
        step.attributes[name] = without_secrets(value)
    step.documents = [
        DocumentStruct(id=one.id, score=one.score, content=without_secrets(one.content))
        for one in step.documents
    ]
