"""Errors as JSON: a status, a code for programs, a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

CODES: Final[dict[int, str]] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    431: "headers_too_large",
    500: "internal_error",
    503: "unavailable",
    504: "gateway_timeout",
}


class WebError(Exception):
    """An answer with an error status. ``str`` is the sentence that the client gets."""

    def __init__(
        self,
        status: int,
        sentence: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str = "",
        nearest: Sequence[str] = (),
    ) -> None:
        """``code`` is a word for programs, by default that of the status; ``nearest`` are ids or
        names that the caller may have meant.
        """
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})
        self.code = code or CODES.get(status, "error")
        self.nearest = list(nearest)


def json_body(data: object) -> bytes:
    """``data`` as one line of JSON. Raises ``TypeError`` or ``ValueError``."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def error_body(error: WebError) -> bytes:
    """``{"error": sentence, "code": word}``, and ``nearest`` where the error has some."""
    nearest = {"nearest": error.nearest} if error.nearest else {}
    return json_body({"error": str(error), "code": error.code, **nearest})


def json_error(error: WebError) -> Response:
    """The error as an answer."""
    return Response(error_body(error), error.status, error.headers, "application/json")
