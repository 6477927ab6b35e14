"""Plain HTTP requests to the store of a URL with a login in it: what clients do for themselves,
urllib does not."""

from __future__ import annotations

import base64

from stepstream.schemas.settings import split_login


def without_login(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its login, and the header that carries the login instead."""
    plain, user, password = split_login(url)
    return plain, basic(user, password) if user else {}


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP basic authentication."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
