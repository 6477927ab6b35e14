"""What can be wrong with a store, from a user's point of view.

StoreError
 +-- StoreUnreachable   nobody answers at the URL
 +-- StoreDenied        user or password is wrong, or a right is missing
 +-- StoreMissing       the database is not there, or its schema is not (yet) this program's
 +-- StoreNewer         the schema was written by a newer program
"""

from __future__ import annotations

from typing import Final

UNKNOWN_DATABASE: Final = 81
DENIED_CODES: Final = frozenset({192, 193, 194, 497, 516})
"""Unknown user, wrong password, password required, access denied, authentication failed."""


class StoreError(Exception):
    """The store cannot be used as asked; the message says what is wrong, where, and what to do."""


class StoreUnreachable(StoreError):
    """Nobody answers at the URL."""


class StoreDenied(StoreError):
    """User or password is wrong, or the user lacks a right."""


class StoreMissing(StoreError):
    """The database is not there, or its schema is not (yet) this program's."""


class StoreNewer(StoreError):
    """The schema was written by a newer program, which this one must not touch."""


def error_code(error: BaseException) -> int:
    """ClickHouse's number for the error; 0 where it has none."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else 0


def first_line(error: BaseException, limit: int = 500) -> str:
    """The first line of an error's text, bounded."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:limit]
