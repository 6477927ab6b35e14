"""Identities: their form, and how derived ones are made.

Derived ids are uuid5 of what the log says, so that a replay makes the same ones and consumers can drop what they have seen.
"""

from __future__ import annotations

import os
import re
import uuid

TRACE_ID_DIGITS = 32
STEP_ID_DIGITS = 16
TRACE_ID = re.compile(rf"[0-9a-f]{{{TRACE_ID_DIGITS}}}")
STEP_ID = re.compile(rf"[0-9a-f]{{{STEP_ID_DIGITS}}}")
ZERO_TRACE_ID = "0" * 32
ZERO_STEP_ID = "0" * 16

_NAMESPACE = uuid.UUID("6f1c1c7e-54a5-5a6e-9a53-7374657073aa")


def new_trace_id() -> str:
    """A random trace id: 32 lower-case hex digits."""
    return os.urandom(16).hex()


def new_step_id() -> str:
    """A random step id: 16 lower-case hex digits."""
    return os.urandom(8).hex()


def derived_id(*parts: str | int) -> str:
    """The uuid5 of the parts, in order; the same parts give the same id on every machine."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))
