"""Ids: their form, and the derivation of ids.

Derived ids are uuid5 of values in the log, so that a replay makes the same ids and consumers can
drop duplicates.
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

_AT_ONCE = 64
_step_ids: list[str] = []
"""Unused random ids. Asking the operating system for each would release the GIL within a step."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_step_ids.clear)

_NAMESPACE = uuid.UUID("6f1c1c7e-54a5-5a6e-9a53-7374657073aa")


def new_trace_id() -> str:
    """A random trace id: 32 lower-case hex digits."""
    return os.urandom(16).hex()


def new_step_id() -> str:
    """A random step id: 16 lower-case hex digits. Any thread may ask for one."""
    try:
        return _step_ids.pop()
    except IndexError:
        # Split by the interpreter's own code: a slice for each id takes three times as long.
        first, *others = os.urandom(8 * _AT_ONCE).hex(" ", 8).split(" ")
        _step_ids.extend(others)
        return first


def derived_id(*parts: str | int) -> str:
    """The uuid5 of the parts, in order; the same parts give the same id on every machine."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))
