"""Attribute values as texts: JSON for what is nested, base64 media described."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any, Final

import msgspec

_encode = msgspec.json.Encoder().encode

NOTHING: Final = frozenset({"", "null", "None", "{}", "[]", "<not specified>", '""'})
"""Texts that instrumentations write for an absent value."""
LONGEST_NOTHING: Final = max(map(len, NOTHING))
"""Texts are compared only up to this length: a look-up hashes the whole text."""

MEDIA_CHARS: Final = 1_368
"""Base64 of 1 KB and more is replaced by a description: else it displaces the text around it."""

# The lookbehind keeps the search linear: inside a run of such characters no second try starts.
_BASE64: Final = re.compile(
    r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{" + str(MEDIA_CHARS) + r",}={0,2}"
)
_TYPE: Final = re.compile(
    r"(?:data:|(?:mime_?type|media_?type|content_?type|mimeType|mediaType)\\*[\"']\s?:\s?\\*[\"'])"
    r"([a-z]{1,20}/[A-Za-z0-9.+-]{1,60})"
)
_TYPE_WITHIN: Final = 200
_MAGIC: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"PK\x03\x04", "application/zip"),
)


def is_nothing(value: Any) -> bool:
    """Whether a value is absent, empty, or a placeholder for an absent one."""
    if value.__class__ is str:
        return len(value) <= LONGEST_NOTHING and value in NOTHING
    return value is None or value in ([], {}, b"")


def text_of(value: Any) -> str:
    """A value as text. Raises nothing: what cannot be JSON becomes its ``str``."""
    kind = value.__class__
    if kind is str:
        text: str = value
        return text
    if kind is int or kind is float:
        return str(value)
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if len(value) < 1024 else _described("", value)
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)[:4_096]


def without_media(text: str) -> str:
    """The text with long base64 values described: ``[image/png, 66,536 bytes, sha256 ...]``."""
    if len(text) < MEDIA_CHARS:
        return text
    parts: list[str] = []
    done = 0
    for found in _BASE64.finditer(text):
        data = _decoded(found[0])
        if data is None:
            continue
        start = max(0, found.start() - _TYPE_WITHIN)
        before = text[max(done, start) : found.start()]
        after = text[found.end() : found.end() + _TYPE_WITHIN]
        types = _TYPE.findall(before)
        behind = _TYPE.search(after) if not types else None
        named = types[-1] if types else behind[1] if behind else ""
        parts += (text[done : found.start()], _described(named, data))
        done = found.end()
    return "".join(parts) + text[done:] if parts else text


def _decoded(text: str) -> bytes | None:
    """The bytes of a base64 text; None for a long word that is no base64."""
    plain = text.rstrip("=")
    # Random bytes have digits and both cases within the first kilobyte; identifiers and drawn
    # lines have not.
    head = plain[:MEDIA_CHARS]
    if not (any(c.isdigit() for c in head) and head.upper() != head and head.lower() != head):
        return None
    if "-" in plain or "_" in plain:
        plain = plain.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _described(named: str, data: bytes) -> str:
    kind = named or next(
        (what for magic, what in _MAGIC if data.startswith(magic)), "application/octet-stream"
    )
    return f"[{kind}, {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}]"


def parsed(text: Any) -> Any:
    """What a JSON text holds; the value itself where it is none. Texts of a megabyte at most."""
    if text.__class__ is not str or len(text) > 1 << 20 or text[:1] not in '[{"':
        return text
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
