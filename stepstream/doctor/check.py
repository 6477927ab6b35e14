"""One thing that was looked at: how it stands, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """``warn`` is worth a look, ``fail`` keeps something from working; ``todo`` says what helps."""

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
