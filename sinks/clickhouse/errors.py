"""The errors of a store that a user can act on.

StoreError
 +-- StoreUnreachable   no server answers at the URL
 +-- StoreDenied        user or password is wrong, or a right is missing
 +-- StoreMissing       there is no such database, or its schema is not up to date
 +-- StoreNewer         the schema was migrated by a newer program
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN_DATABASE: Final = 81
UNKNOWN_TABLE: Final = 60
DENIED_CODES: Final = frozenset({192, 193, 194, 497, 516})
"""Unknown user, wrong password, password required, access denied, authentication failed."""

SCHEMA_CODES: Final = frozenset({8, 10, 16, 36, 47, 60})
"""A table or column of a statement does not exist or has another type."""

MIGRATE: Final = "run `stepstream store migrate`"
_MISSING: Final = re.compile(
    r"Table `?(?:\w+`?\.`?)?(\w+)`?(?: \([^)]*\))? does(?: not|n't) exist"
    r"|Unknown table expression identifier '(?:\w+\.)?(\w+)'"
)
_SENTENCE: Final = re.compile(
    r"DB::Exception:\s*(.*?)"
    r"(?:\s*\([A-Z_]{4,}\)|\s*\((?:version|for url) [^)]*\)|\s*Stack trace:|$)",
    re.DOTALL,
)
_SCOPE: Final = re.compile(r"[.:,]? In scope .*", re.DOTALL)


class StoreError(Exception):
    """The store cannot be used as asked. The message names what is wrong, where, and what to do."""


class StoreUnreachable(StoreError):
    """No server answers at the URL."""


class StoreDenied(StoreError):
    """User or password is wrong, or the user lacks a right."""


class StoreMissing(StoreError):
    """There is no such database, or its schema is not up to date."""


class StoreNewer(StoreError):
    """The schema was migrated by a newer program; this one must not change it."""


def error_code(error: BaseException) -> int:
    """ClickHouse's number of the error; 0 where it has none."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else 0


_NETWORK: Final = re.compile(
    r"\[Errno -?\d+\] ([^'\")\\]+)"
    r"|(Read timed out|timed out|CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER)"
)
"""The reason of a failed connection, inside the HTTP library's text."""


def first_line(error: BaseException, limit: int = 500) -> str:
    """The first line of an error's text, at most ``limit`` characters; of a failed connection the
    reason.
    """
    text = str(error).strip() or type(error).__name__
    found = _NETWORK.search(text)
    if found and not error_code(error):
        reason = (found[1] or found[2]).strip().replace("_", " ")
        return reason[:1].lower() + reason[1:] if found[1] else reason.lower()
    return text.splitlines()[0][:limit]


def sentence(error: BaseException, limit: int = 1_000) -> str:
    """ClickHouse's own message, without code, version, stack trace and the repeated statement."""
    text = str(error)
    found = _SENTENCE.search(text)
    words = " ".join(_SCOPE.sub("", found[1] if found else text).split()).rstrip(". ")
    # The client adds the format to the statement.
    return words.replace(" FORMAT Native", "")[:limit]


def missing_table(error: BaseException) -> str:
    """The table or view that a statement did not find; empty for any other error."""
    if error_code(error) != UNKNOWN_TABLE:
        return ""
    found = _MISSING.search(str(error))
    return (found[1] or found[2]) if found else ""


def worded(error: BaseException) -> str:
    """The error for a log line: one sentence, and for an outdated schema the command that helps."""
    if not error_code(error):
        return first_line(error)
    hint = f": {MIGRATE}" if error_code(error) in SCHEMA_CODES else ""
    return f"{sentence(error)}{hint}"
