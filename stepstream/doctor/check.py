"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """A result: ``what`` was checked, ``text`` states the result, ``todo`` what the user should do.

    ``warn``: it works now but may stop working; ``fail``: it does not work.
    """

    status: Status
    what: str
    text: str
    todo: str = ""


def ok(what: str, text: str) -> Check:
    return Check("ok", what, text)


def warn(what: str, text: str, todo: str) -> Check:
    return Check("warn", what, text, todo)


def fail(what: str, text: str, todo: str) -> Check:
    return Check("fail", what, text, todo)
