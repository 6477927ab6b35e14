"""Answers as JSON, compressed where the client accepts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

import msgspec
from starlette.responses import Response

from stepstream.common.web import coding
from stepstream.common.web.errors import json_body
from stepstream.schemas.times import us_of

COMPRESS_BYTES: Final = 1_024
"""Smaller answers fit into one packet anyway."""

# Costs are decimals of the store; as text each of them would have to be parsed by the page.
_encode: Final = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


def plain(value: Any) -> Any:
    """A value of the store for JSON: times as microseconds, other values as they are."""
    if isinstance(value, datetime):
        return us_of(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def json_bytes(data: object) -> bytes:
    """``data`` as JSON. NaN and infinities become null, lone surrogates a question mark."""
    try:
        return _encode(data)
    except UnicodeEncodeError:
        return json_body(msgspec.to_builtins(data, enc_hook=str, str_keys=True))


def answer(data: object, accepted: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """An answer with JSON; ``accepted`` is the request's Accept-Encoding. For a thread: large
    answers take tens of milliseconds to encode.
    """
    body = json_bytes(data)
    name = coding.choose(accepted) if len(body) >= COMPRESS_BYTES else ""
    coded = {"Vary": "Accept-Encoding"}
    if name:
        encoder = coding.encoder(name)
        body = encoder.compress(body) + encoder.flush()
        coded["Content-Encoding"] = name
    return Response(body, 200, {**(headers or {}), **coded}, "application/json")


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows column by column."""
    return {name: [row.get(name) for row in rows] for name in names}
