"""Rows about runs whose configuration is not that of a published release. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepstream.schemas import config_drift as drift
from stepstream.schemas.config_drift import KINDS, Kind, Used
from stepstream.schemas.release import SHOWN_HASH
from stepstream.schemas.release_log import ReleaseLog


@dataclass(frozen=True)
class ConfigDrift:
    """Runs of an agent with the same difference."""

    agent: str
    agent_version: str
    release: str
    """The hash."""
    kind: Kind
    detail: str
    runs: int
    last_run: datetime
    trace_id: str
    """The last of them."""


def config_drift(configurations: Iterable[Mapping[str, Any]], log: ReleaseLog) -> list[ConfigDrift]:
    """The differences in rows of the question ``configurations``.

    Agents without releases have none.
    """
    return [
        ConfigDrift(
            row["agent"],
            row["agent_version"],
            row["release"],
            kind,
            _detail(kind, names, row["release"]),
            row["runs"],
            row["last_run"],
            row["trace_id"],
        )
        for row in configurations
        for kind, names in drift.config_drift(_used(row), log)
    ]


def _used(row: Mapping[str, Any]) -> Used:
    return Used(*(row[name] for name in Used._fields))


def _detail(kind: Kind, names: tuple[str, ...], release: str) -> str:
    if kind == "unknown":
        return f"the release {release[:SHOWN_HASH]} was never published"
    if kind == "version":
        return f"the release is {names[0]}"
    return f"not in the release: {', '.join(names)}" if names else KINDS[kind]
