"""Texts of alerts for notifications: shortened, without secrets and personal data."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.alert_text import sentence
from stepstream.schemas.documents import Content
from stepstream.schemas.printable import printable
from stepstream.schemas.redaction import without_secrets
from stepstream.schemas.secret_forms import EMAIL

ELLIPSIS: Final = "..."
MAX_NAME_CHARS: Final = 100
MAX_MESSAGE_CHARS: Final = 300
MAX_QUOTED_CHARS: Final = 500
MAX_FULL_CHARS: Final = 16_000

_LONG_NUMBER: Final = re.compile(r"(?<!\d)(?<!\d[ -])\d(?:[ -]?\d){12,18}(?![ -]?\d)")
"""A card or account number."""
_READ_FACTOR: Final = 8
"""A text is searched this many times further than its limit: a replaced secret becomes shorter."""


def redacted(text: str, max_chars: int) -> str:
    """The text without secrets, e-mail addresses and long numbers.

    A long text is cut, but to more than ``max_chars``: shorten the result.
    """
    if len(text) > max_chars * _READ_FACTOR:
        # At a space, so that the end is not half of a secret, which would not be recognised.
        text = f"{text[: max_chars * _READ_FACTOR].rpartition(' ')[0]}{ELLIPSIS}"
    text = without_secrets(text, words_too=True)
    return _LONG_NUMBER.sub("[number]", EMAIL.sub("[e-mail]", text))


def cut(text: str, max_chars: int) -> str:
    """The text on one line, printable, in at most ``max_chars`` characters."""
    text = printable(" ".join(text.split()))
    if len(text) <= max_chars:
        return text
    return f"{text[: max_chars - len(ELLIPSIS)].rstrip()}{ELLIPSIS}"


def message_of(text: str, content: Content) -> str:
    """An alert's message. It contains names that agents chose, so it is redacted too."""
    if content == "full":
        return cut(text, MAX_FULL_CHARS)
    return cut(redacted(text, MAX_MESSAGE_CHARS), MAX_MESSAGE_CHARS)


def quoted_of(text: str, content: Content) -> str:
    """A text that quotes from a step, as the subscription's ``content`` allows."""
    if content == "none":
        return ""
    if content == "full":
        return cut(text, MAX_FULL_CHARS)
    return cut(redacted(text, MAX_QUOTED_CHARS), MAX_QUOTED_CHARS)


def texts_of(alert: Alert | AlertStruct, content: Content) -> dict[str, str]:
    """The fields ``message``, ``quoted`` and ``detail`` of an alert, as ``content`` allows."""
    return {
        "message": message_of(sentence(alert), content),
        "quoted": quoted_of(alert.quoted, content),
        "detail": quoted_of(alert.detail, content),
    }


def format_time(time_us: int) -> str:
    """A time in a sentence: ``2026-03-01 12:03:07 UTC``."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
