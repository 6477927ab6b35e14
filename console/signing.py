"""Signed texts: the links that sign a person in once, and the cookies of sessions. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

LINK: Final = "link"
SESSION: Final = "session"


class BadSignature(Exception):
    """The text was not made by this console, or was changed."""


class Expired(Exception):
    """The text was valid until a time that is over."""


def signed(secret: str, kind: str, fields: Mapping[str, Any], until_s: float) -> str:
    """The fields as a text for URLs and cookies, valid until ``until_s`` (seconds since 1970)."""
    body = json.dumps({**fields, "until": until_s}, separators=(",", ":")).encode()
    return f"{_text(body)}.{_text(_mac(secret, kind, body))}"


def opened(secret: str, kind: str, text: str, now_s: float) -> dict[str, Any]:
    """The fields of a text that ``signed`` made. Raises ``BadSignature`` and ``Expired``."""
    body_text, _, mac_text = text.partition(".")
    try:
        body, mac = _bytes(body_text), _bytes(mac_text)
    except ValueError:
        raise BadSignature from None
    # The kind is part of what is signed: a cookie is not a link.
    if not hmac.compare_digest(mac, _mac(secret, kind, body)):
        raise BadSignature
    fields: dict[str, Any] = json.loads(body)
    if float(fields.pop("until")) <= now_s:
        raise Expired
    return fields


def _mac(secret: str, kind: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), kind.encode() + b"\0" + body, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if not text.isascii():
        raise ValueError
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
