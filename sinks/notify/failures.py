"""The errors of a delivery attempt, and the sentence for a network error."""

from __future__ import annotations

import socket
import ssl
import time


class DeliveryError(Exception):
    """A delivery attempt failed; the text is the reason."""


class Refused(DeliveryError):
    """The other side will never accept it as it is. It is not tried again."""


class TemporaryFailure(DeliveryError):
    """The other side may accept it later. It is tried again, not before ``retry_after_us``."""

    def __init__(self, reason: str, retry_after_us: int = 0) -> None:
        super().__init__(reason)
        self.retry_after_us = retry_after_us


def describe_failure(error: BaseException, deadline: float) -> str:
    """The sentence for a network error. ``deadline`` is a time of ``time.monotonic``."""
    if time.monotonic() >= deadline or isinstance(error, TimeoutError):
        # After the deadline every error is a consequence of shutting the connection down.
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the host is unknown: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"no HTTP answer: {type(error).__name__} {error}".strip()
