"""Answers as OTLP wants them: partial success, and errors as ``google.rpc.Status``, in protobuf or
JSON.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Signal = Literal["traces", "logs", "metrics"]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
MAX_REASON_BYTES: Final = 800

_REJECTED: Final[dict[str, str]] = {
    "traces": "rejectedSpans",
    "logs": "rejectedLogRecords",
    "metrics": "rejectedDataPoints",
}

# Codes of google.rpc.Code for the statuses that we answer with.
_CODES: Final = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    408: 4,
    413: 8,
    415: 3,
    429: 8,
    500: 13,
    502: 14,
    503: 14,
    504: 14,
}


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _text_field(number: int, words: str) -> bytes:
    data = words.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    data = data.decode("utf-8", "ignore").encode()
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def success(signal: Signal, form: str, rejected: int = 0, reason: str = "") -> bytes:
    """The body of a 200: empty where all was taken, else how many were not, and why."""
    if form == JSON:
        if not rejected and not reason:
            return b"{}"
        partial: dict[str, str] = {_REJECTED[signal]: str(rejected)} if rejected else {}
        return msgspec.json.encode(
            {"partialSuccess": partial | {"errorMessage": reason[:MAX_REASON_BYTES]}}
        )
    if not rejected and not reason:
        return b""
    inner = (b"\x08" + _varint(rejected) if rejected else b"") + _text_field(2, reason)
    return b"\x0a" + _varint(len(inner)) + inner


def failure(status: int, sentence: str, form: str) -> bytes:
    """The body of an error."""
    code = _CODES.get(status, 2)
    if form == JSON:
        return msgspec.json.encode({"code": code, "message": sentence[:MAX_REASON_BYTES]})
    return b"\x08" + _varint(code) + _text_field(2, sentence)
