"""The exception that decoders raise for a body that is not a request."""

from __future__ import annotations


class Malformed(ValueError):
    """The body is not a valid request; the message has the reason where it is known."""
