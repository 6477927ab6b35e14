"""What can be wrong with a store, from a user's point of view.

StoreError
 +-- StoreUnreachable   nobody answers at the URL
 +-- StoreDenied        user or password is wrong, or a right is missing
 +-- StoreMissing       the database is not there, or its schema is not (yet) this program's
 +-- StoreNewer         the schema was written by a newer program
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN_DATABASE: Final = 81
UNKNOWN_TABLE: Final = 60
DENIED_CODES: Final = frozenset({192, 193, 194, 497, 516})
"""Unknown user, wrong password, password required, access denied, authentication failed."""

SCHEMA_CODES: Final = frozenset({8, 10, 16, 36, 47, 60})
"""A table or column that a statement names is not there, or is not what the statement takes it for."""

MIGRATE: Final = "run `stepstream store migrate`"
_MISSING: Final = re.compile(
    r"Table `?(?:\w+`?\.`?)?(\w+)`?(?: \([^)]*\))? does(?: not|n't) exist|Unknown table expression identifier '(?:\w+\.)?(\w+)'"
)
_SENTENCE: Final = re.compile(
    r"DB::Exception:\s*(.*?)(?:\s*\([A-Z_]{4,}\)|\s*\((?:version|for url) [^)]*\)|\s*Stack trace:|$)",
    re.DOTALL,
)
_SCOPE: Final = re.compile(r"[.:,]? In scope .*", re.DOTALL)


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


_NETWORK: Final = re.compile(
    r"\[Errno -?\d+\] ([^'\")\\]+)|(Read timed out|timed out|CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER)"
)
"""What is wrong with a connection, somewhere in what the HTTP library says of it."""


def first_line(error: BaseException, limit: int = 500) -> str:
    """The first line of an error's text, bounded; of a connection that failed, the reason alone."""
    text = str(error).strip() or type(error).__name__
    found = _NETWORK.search(text)
    if found and not error_code(error):
        said = (found[1] or found[2]).strip().replace("_", " ")
        return said[:1].lower() + said[1:] if found[1] else said.lower()
    return text.splitlines()[0][:limit]


def sentence(error: BaseException, limit: int = 1_000) -> str:
    """What ClickHouse complains about, in its words: no codes, no version, no stack, no repetition of the whole statement."""
    text = str(error)
    found = _SENTENCE.search(text)
    words = " ".join(_SCOPE.sub("", found[1] if found else text).split()).rstrip(". ")
    return words.replace(" FORMAT Native", "")[:limit]  # what the client added to the statement


def missing_table(error: BaseException) -> str:
    """The name of the table or view that a statement needed and did not find; empty for any other error."""
    if error_code(error) != UNKNOWN_TABLE:
        return ""
    found = _MISSING.search(str(error))
    return (found[1] or found[2]) if found else ""


def worded(error: BaseException) -> str:
    """The error as a log says it: one sentence, and the command that helps where the schema is not what it should be."""
    if not error_code(error):
        return first_line(error)
    hint = f": {MIGRATE}" if error_code(error) in SCHEMA_CODES else ""
    return f"{sentence(error)}{hint}"
