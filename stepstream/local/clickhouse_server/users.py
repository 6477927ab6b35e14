"""Users and their rights: a credential with scope ``admin`` writes, one with ``read`` only
reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepstream.common.web.credentials import Credential
from stepstream.local.clickhouse_server.allowed import LIMITS, check_requested
from stepstream.local.clickhouse_server.errors import ACCESS_DENIED, error


@dataclass(frozen=True)
class Limits:
    """Limits of one query; 0 means none."""

    max_execution_time: int = 0
    max_result_rows: int = 0
    max_memory_usage: int = 0
    max_result_bytes: int = 0

    def settings(self) -> dict[str, str]:
        """The limits as settings of ClickHouse, without those that are 0."""
        values = {name: getattr(self, name) for name in LIMITS}
        return {name: str(value) for name, value in values.items() if value}


@dataclass(frozen=True)
class User:
    """The user of a request."""

    name: str
    reader: bool
    limits: Limits


@dataclass(frozen=True)
class Users:
    """The limits of each kind of user."""

    writer_limits: Limits = field(default_factory=Limits)
    reader_limits: Limits = field(default_factory=Limits)

    def of(self, credential: Credential) -> User:
        """The user that a credential makes. Raises ACCESS_DENIED for one with neither scope."""
        if credential.allows("admin"):
            return User(credential.name, False, self.writer_limits)
        if credential.allows("read"):
            return User(credential.name, True, self.reader_limits)
        raise error(
            ACCESS_DENIED,
            f"credential {credential.name} may not use the store: it needs the scope read or "
            "admin, for all projects",
        )


def settings_for(user: User, asked: Mapping[str, str]) -> dict[str, str]:
    """The settings a query runs with.

    A reader's are its limits, lowered where it asks for less, and readonly=1.
    """
    check_requested(list(asked), user.reader)
    limits = user.limits.settings()
    if not user.reader:
        return {**limits, **asked}
    lowered = {
        name: _lower(limits.get(name, "0"), value) if name in LIMITS else value
        for name, value in asked.items()
    }
    return {**limits, **lowered, "readonly": "1"}


def _lower(limit: str, asked: str) -> str:
    try:
        wanted = float(asked)
    except ValueError:
        return limit
    return asked if wanted > 0 and (limit == "0" or wanted < float(limit)) else limit
