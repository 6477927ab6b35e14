"""A user and a password."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True)
class Login:
    """A user and a password (not in its repr); ``user`` is empty if none is required."""

    user: str = ""
    password: str = field(default="", repr=False)

    def url(self, url: str) -> str:
        """The URL with this login in it."""
        scheme, _, rest = url.partition("://")
        return (
            f"{scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{rest}"
            if self.user
            else url
        )
