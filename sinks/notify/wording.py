"""What alerts quote from steps, made fit to leave the house: cut, and cleared of what looks like a secret or a person."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.documents import Content
from stepstream.schemas.printable import printable

ELLIPSIS: Final = "..."
NAME_CHARS: Final = 100
MESSAGE_CHARS: Final = 300
QUOTED_CHARS: Final = 500
FULL_CHARS: Final = 16_000

_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), "[private key]"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "[token]"),
    (re.compile(r"\b(sk|pk|rk|ghp|gho|ghs|glpat|xox[abprs]|hf|AKIA|ASIA|AIza)[-_]?[A-Za-z0-9_-]{14,}"), "[key]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [credential]"),
    (
        re.compile(r"(?i)\b(password|passwd|pwd|secret|token|api[_-]?key|authorization)(\"?\s*[:=]\s*\"?)[^\s\",;&]{3,}"),
        r"\1\2[secret]",
    ),
    (re.compile(r"(?i)(://)[^/\s:@]+:[^/\s@]+@"), r"\1[credential]@"),
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "[e-mail]"),
    (re.compile(r"\b\d(?:[ -]?\d){12,18}\b"), "[number]"),
)


def redacted(text: str) -> str:
    """The text without what looks like a key, a password, a token, an address of a person or a long number."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def cut(text: str, longest: int) -> str:
    """On one line, printable and no longer than that."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - len(ELLIPSIS)].rstrip()}{ELLIPSIS}"


def message_of(text: str, content: Content) -> str:
    """An alert's message: words of ours and names. A name that looks like a secret is left out unless all is wanted."""
    return cut(text, FULL_CHARS) if content == "full" else cut(redacted(text), MESSAGE_CHARS)


def quoted_of(text: str, content: Content) -> str:
    """What steps said, a quotation or a likely cause, as far as it is wanted."""
    if content == "none":
        return ""
    return cut(text, FULL_CHARS) if content == "full" else cut(redacted(text), QUOTED_CHARS)


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
