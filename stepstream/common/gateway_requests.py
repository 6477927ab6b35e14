"""Requests of commands to a gateway: one POST of JSON, and the reason where it is refused."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Final

TIMEOUT_S: Final = 10.0
"""The gateway waits for Kafka for some seconds less."""
ANSWER_BYTES: Final = 65_536
"""What is read of an answer: a proxy in between may send a whole page."""
MOST_BYTES: Final = 4 << 20
"""The same for an answer that has data."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes an error of every redirect: the key would be sent to wherever it leads."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def post(url: str, key: str, body: dict[str, Any]) -> bytes:
    """POST the body as JSON, with the key where it is not empty; returns the answer's body.

    Raises ``urllib.error.HTTPError`` for an answer other than 2xx, and ``OSError`` where the
    gateway cannot be reached or does not answer by HTTP.
    """
    headers = {"Content-Type": "application/json"} | ({"x-api-key": key} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    return _answer(request, TIMEOUT_S, ANSWER_BYTES)


def refusal(error: urllib.error.HTTPError) -> str:
    """The words of the answer, and its status."""
    try:
        problem = json.loads(error.read(ANSWER_BYTES))
        words = str(problem.get("message") or problem.get("error"))
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        words = str(error.reason)
    return f"{words} (HTTP {error.code})"


def get(url: str, key: str, *, wait_s: float = 0.0) -> bytes:
    """GET with the key; ``wait_s`` is how long the gateway may take. Raises as ``post``."""
    request = urllib.request.Request(url, headers={"x-api-key": key} if key else {})
    return _answer(request, TIMEOUT_S + wait_s, MOST_BYTES)


def _answer(request: urllib.request.Request, timeout_s: float, most_bytes: int) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects())
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            found: bytes = answer.read(most_bytes)
    except http.client.HTTPException as error:
        raise OSError(f"it does not answer by HTTP ({type(error).__name__})") from None
    return found
