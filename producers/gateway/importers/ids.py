"""Ids for what is imported: hex ids are kept, others derived, so that importing twice adds
nothing.
"""

from __future__ import annotations

import hashlib

from stepstream.schemas.ids import STEP_ID, TRACE_ID, ZERO_STEP_ID, ZERO_TRACE_ID


def trace_id_of(source: str, key: str) -> str:
    """The trace id of a trace that ``source`` calls ``key``."""
    # Langfuse writes a UUID with dashes; without them it is a valid trace id and stays readable.
    plain = key.replace("-", "").lower()
    if TRACE_ID.fullmatch(plain) and plain != ZERO_TRACE_ID:
        return plain
    return _derived(source, key, 32)


def span_id_of(source: str, key: str) -> str:
    """The span id of an observation that ``source`` calls ``key``."""
    plain = key.lower()
    if STEP_ID.fullmatch(plain) and plain != ZERO_STEP_ID:
        return plain
    return _derived(source, key, 16)


def _derived(source: str, key: str, digits: int) -> str:
    return hashlib.sha256(f"{source}\x1f{key}".encode("utf-8", "replace")).hexdigest()[:digits]
