"""Removes secrets from a step's texts within the CPU budget of a gateway.

Running every pattern over every text costs 38 us a span, more than all other work on it. All texts
of a step are searched at once, in one pass, for the literals that every secret contains. Only where
one is found is each text searched on its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ahocorasick_rs import AhoCorasick, Implementation

from stepstream.schemas.redaction import is_secret_name, without_secrets
from stepstream.schemas.secret_forms import (
    HEADERS,
    KEY_STARTS,
    NAMES,
    REDACTED,
    TEXT_FORMS,
    key_starts,
)
from stepstream.schemas.step import AnyStep, DocumentStruct

_HINTS: Final = (*(form.hint for form in TEXT_FORMS), *(form.hint for form in HEADERS), ".eyJ")
_STEMS: Final = tuple(NAMES)

# 90 literals: one pass over 650 characters takes 1.7 us, `in` for each of them 14 us. Names are
# found in any case, so everything is compared in lower case; the few more hits that this gives
# ("Asia" for "ASIA") are sorted out by `may_hold_secrets`. A DFA is twice as fast as the default.
_literals: Final = AhoCorasick(
    sorted({literal.lower() for literal in (*_HINTS, *_STEMS, *KEY_STARTS)}),
    implementation=Implementation.DFA,
    store_patterns=False,
)


def _has_literal(text: str) -> bool:
    """Whether a text contains a literal of any secret; true for all that ``may_hold_secrets``."""
    if "://" in text and "@" in text:
        return True
    return bool(_literals.find_matches_as_indexes(text.lower()))


def may_hold_secrets(text: str) -> bool:
    """Whether a text contains anything that ``without_secrets`` might replace.

    False only where it contains nothing.
    """
    if not _has_literal(text):
        return False
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


def _cleared(text: str) -> str:
    return without_secrets(text) if may_hold_secrets(text) else text


_is_secret = lru_cache(maxsize=8_192)(is_secret_name)


def redact(step: AnyStep) -> None:
    """Take secrets out of everything in a step that may contain any."""
    texts = [step.input, step.output, step.error_message, step.name]
    texts += step.attributes.values()
    if step.documents:
        texts += [document.content for document in step.documents]
    # Values are redacted by the attribute's name (password, api_key ...): few attributes have one.
    for name in step.attributes:
        if _is_secret(name):
            step.attributes[name] = REDACTED
    if not _has_literal("\n".join(texts)):
        return
    step.name = _cleared(step.name)
    step.input = _cleared(step.input)
    step.output = _cleared(step.output)
    step.error_message = _cleared(step.error_message)
    for name, value in step.attributes.items():
        step.attributes[name] = _cleared(value)
    step.documents = [
        DocumentStruct(id=one.id, score=one.score, content=_cleared(one.content))
        for one in step.documents
    ]
