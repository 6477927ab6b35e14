"""What alerts quote from steps, made fit to leave the house: cut, and cleared of what looks like a secret or a person."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.documents import Content
from stepstream.schemas.printable import printable
from stepstream.schemas.redaction import without_secrets
from stepstream.schemas.secret_forms import EMAIL

ELLIPSIS: Final = "..."
NAME_CHARS: Final = 100
MESSAGE_CHARS: Final = 300
QUOTED_CHARS: Final = 500
FULL_CHARS: Final = 16_000

_LONG_NUMBER: Final = re.compile(r"(?<!\d)(?<!\d[ -])\d(?:[ -]?\d){12,18}(?![ -]?\d)")
_READ_MORE: Final = 8
"""So many times as much as is told is read, so that what takes the place of a secret leaves room for what follows."""


def redacted(text: str, longest: int) -> str:
    """The text without what looks like a secret, an address of a person or a long number; its beginning where it is long."""
    if len(text) > longest * _READ_MORE:
        text = f"{text[: longest * _READ_MORE].rpartition(' ')[0]}{ELLIPSIS}"  # no half of a secret at the end
    text = without_secrets(text, words_too=True)
    return _LONG_NUMBER.sub("[number]", EMAIL.sub("[e-mail]", text))


def cut(text: str, longest: int) -> str:
    """On one line, printable and no longer than that."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - len(ELLIPSIS)].rstrip()}{ELLIPSIS}"


def message_of(text: str, content: Content) -> str:
    """An alert's message: words of ours and names. A name that looks like a secret is left out unless all is wanted."""
    return (
        cut(text, FULL_CHARS)
        if content == "full"
        else cut(redacted(text, MESSAGE_CHARS), MESSAGE_CHARS)
    )


def quoted_of(text: str, content: Content) -> str:
    """What steps said, a quotation or a likely cause, as far as it is wanted."""
    if content == "none":
        return ""
    return (
        cut(text, FULL_CHARS)
        if content == "full"
        else cut(redacted(text, QUOTED_CHARS), QUOTED_CHARS)
    )


def texts_of(alert: Alert | AlertStruct, content: Content) -> dict[str, str]:
    """The fields of an alert that hold sentences or what steps said, as far as they are wanted; for every form of telling."""
    return {
        "message": message_of(alert.message, content),
        "quoted": quoted_of(alert.quoted, content),
        "detail": quoted_of(alert.detail, content),
    }


def written_time(time_us: int) -> str:
    """A moment in a sentence: ``2026-03-01 12:03:07 UTC``."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
