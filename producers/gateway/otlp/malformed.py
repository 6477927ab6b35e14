"""What every decoder raises for a body that is no request at all."""

from __future__ import annotations


class Malformed(ValueError):
    """The body is no such request; ``str`` says why, where that is known."""
