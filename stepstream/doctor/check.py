"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """``fail``: something does not work; ``warn``: it may soon not. ``todo`` is what to do."""

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
