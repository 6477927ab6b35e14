"""Errors as ClickHouse sends them: a number, a name, a sentence, and the matching HTTP status."""

from __future__ import annotations

import re
from typing import Final

SYNTAX_ERROR: Final = (62, "SYNTAX_ERROR")
NOT_IMPLEMENTED: Final = (48, "NOT_IMPLEMENTED")
READONLY: Final = (164, "READONLY")
ACCESS_DENIED: Final = (497, "ACCESS_DENIED")
AUTHENTICATION_FAILED: Final = (516, "AUTHENTICATION_FAILED")
TOO_MANY_QUERIES: Final = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
SESSION_NOT_FOUND: Final = (372, "SESSION_NOT_FOUND")
SESSION_IS_LOCKED: Final = (373, "SESSION_IS_LOCKED")
BAD_ARGUMENTS: Final = (36, "BAD_ARGUMENTS")
CANNOT_DECOMPRESS: Final = (271, "CANNOT_DECOMPRESS")
UNKNOWN_COMPRESSION: Final = (89, "UNKNOWN_COMPRESSION_METHOD")
ABORTED: Final = (236, "ABORTED")
UNKNOWN_FORMAT: Final = (73, "UNKNOWN_FORMAT")
SETTING_REFUSED: Final = (452, "SETTING_CONSTRAINT_VIOLATION")
UNKNOWN_EXCEPTION: Final = (1002, "UNKNOWN_EXCEPTION")
TOO_LARGE: Final = (307, "TOO_MANY_BYTES")
RESULT_TOO_LARGE: Final = (396, "TOO_MANY_ROWS_OR_BYTES")

_CODE = re.compile(r"Code: (\d+)\.")
_STATUS: Final = {
    **dict.fromkeys((6, 26, 27, 33, 36, 41, 43, 53, 62, 63, 70, 72, 117, 271, 456), 400),
    **dict.fromkeys((46, 47, 50, 51, 55, 56, 57, 60, 73, 79, 81, 89, 115, 192, 372), 404),
    194: 401,
    452: 403,
    497: 403,
    516: 403,
    164: 403,
    159: 408,
    373: 423,
    48: 501,
    202: 503,
    307: 413,
}


class ClickHouseError(Exception):
    """An error in ClickHouse's form;

    ``str`` is the whole message, "Code: 60. DB::Exception: ...".
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 500)


def error(kind: tuple[int, str], sentence: str) -> ClickHouseError:
    """An error of the server itself, in the engine's form."""
    code, name = kind
    return ClickHouseError(code, f"Code: {code}. DB::Exception: {sentence} ({name})")


def from_engine(exception: BaseException) -> ClickHouseError:
    """The engine's own message, without what its Python binding puts before it."""
    text = str(exception).strip()
    found = _CODE.search(text)
    if not found:
        return ClickHouseError(
            1002,
            f"Code: 1002. DB::Exception: {text or type(exception).__name__} (UNKNOWN_EXCEPTION)",
        )
    return ClickHouseError(int(found[1]), text[found.start() :])
