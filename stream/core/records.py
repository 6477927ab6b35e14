"""A consumed record, as the stages use it, and one in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stepstream.schemas.step import RECORD_HEADERS


class Record(Protocol):
    """The attributes of records that the stages read. ``timestamp`` is in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class LogRecord:
    """A record of a log in memory."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = RECORD_HEADERS
