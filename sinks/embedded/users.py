"""Who may ask what: users with the scope ``admin`` write, users with ``read`` alone can change nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from stepstream.common.web.credentials import Credentials, TooManyTries
from stepstream.sinks.embedded.errors import AUTHENTICATION_FAILED, READONLY, error


@dataclass(frozen=True)
class Limits:
    """What one query may take; 0 is no limit."""

    max_execution_time: int = 0
    max_result_rows: int = 0
    max_memory_usage: int = 0

    def settings(self) -> dict[str, str]:
        values = {
            "max_execution_time": self.max_execution_time,
            "max_result_rows": self.max_result_rows,
            "max_memory_usage": self.max_memory_usage,
        }
        return {name: str(value) for name, value in values.items() if value}


@dataclass(frozen=True)
class User:
    """A user after the door."""

    name: str
    reader: bool
    limits: Limits


@dataclass(frozen=True)
class Users:
    """The credential table, and the limits of those who write and those who only read."""

    credentials: Credentials
    writer_limits: Limits = field(default_factory=Limits)
    reader_limits: Limits = field(default_factory=Limits)

    def enter(self, name: str, password: str, client: str) -> User:
        """The user, for a request from the address ``client``. Raises AUTHENTICATION_FAILED, without saying what was wrong."""
        try:
            known = self.credentials.verify(name, password, client=client, now_s=time.monotonic())
        except TooManyTries as limited:
            raise error(AUTHENTICATION_FAILED, f"{name}: Authentication failed: {limited}") from None
        if known is None or not (known.allows("read") or known.allows("admin")):
            raise error(
                AUTHENTICATION_FAILED,
                f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
            )
        reader = not known.allows("admin")
        return User(name, reader, self.reader_limits if reader else self.writer_limits)


# What a reader may say about its own query: how the answer looks and how it travels, not what may be done.
_READERS_OWN = ("output_format_", "format_csv_delimiter", "date_time_output_format", "log_comment", "max_block_size",
                "cancel_http_readonly_queries_on_client_close", "readonly", "http_")  # fmt: skip


def settings_for(user: User, asked: Mapping[str, str]) -> dict[str, str]:
    """The settings a query runs with. A reader's are its limits, lowered where it asks for less, and readonly=1."""
    if not user.reader:
        return {**user.limits.settings(), **asked}
    limits = user.limits.settings()
    result = dict(limits)
    for name, value in asked.items():
        if name in ("max_execution_time", "max_result_rows", "max_memory_usage"):
            result[name] = _lower(limits.get(name, "0"), value)
        elif name.startswith(_READERS_OWN):
            result[name] = value
        else:
            raise error(READONLY, f"Cannot modify '{name}' setting in readonly mode")
    return {**result, "readonly": "1"}


def _lower(limit: str, asked: str) -> str:
    try:
        wanted = float(asked)
    except ValueError:
        return limit
    return asked if wanted > 0 and (limit == "0" or wanted < float(limit)) else limit
