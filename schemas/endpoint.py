"""The setting ``endpoint``: the two forms that it has, ``kafka://`` and ``http(s)://``."""

from __future__ import annotations

import re
from typing import Final

_HTTP: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/:@?#\s]+)(:\d{1,5})?(/[^?#\s@]*)?")
_LOOPBACK: Final = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")
# Paths of the gateway itself that people copy into an endpoint.
_OWN_PATHS: Final = ("/v1/steps", "/v1/traces", "/v1")


def is_http(endpoint: str) -> bool:
    """True if the endpoint is a gateway's URL."""
    return endpoint.startswith(("http://", "https://"))


def split_http_endpoint(endpoint: str) -> tuple[str, str, str]:
    """The URL without its path, the host, and the path before ``/v1``. Raises ``ValueError``."""
    found = _HTTP.fullmatch(endpoint.strip())
    if found is None:
        raise ValueError("write http://host:port or https://host, without login and query")
    scheme, host, port, path = found.groups(default="")
    path = path.rstrip("/")
    for own in _OWN_PATHS:
        path = path.removesuffix(own)
    return f"{scheme}://{host}{port}", host, path


def is_loopback_host(host: str) -> bool:
    """True for this machine."""
    return _LOOPBACK.fullmatch(host) is not None
