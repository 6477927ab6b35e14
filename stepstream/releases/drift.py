"""Runs whose configuration is not that of a published release (``config_drift``). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from stepstream.schemas.release import SHOWN_HASH, Release
from stepstream.schemas.release_log import ReleaseLog

Kind = Literal["none", "unknown", "version", "tools", "models"]
_DATE: Final = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
KINDS: Final[dict[Kind, str]] = {
    "none": "no release was used, although the agent has some",
    "unknown": "the release was never published",
    "version": "the run carries another version than its release",
    "tools": "tools were called that the release does not have",
    "models": "models were used that the release does not name",
}


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
    agents = set(log.agents())
    found: list[ConfigDrift] = []
    for row in configurations:
        if row["agent"] in agents:
            found += [_drift(row, kind, detail) for kind, detail in _differences(row, log)]
    return found


def _drift(row: Mapping[str, Any], kind: Kind, detail: str) -> ConfigDrift:
    return ConfigDrift(
        row["agent"],
        row["agent_version"],
        row["release"],
        kind,
        detail,
        row["runs"],
        row["last_run"],
        row["trace_id"],
    )


def _differences(row: Mapping[str, Any], log: ReleaseLog) -> list[tuple[Kind, str]]:
    if not row["release"]:
        return [("none", KINDS["none"])]
    releases = [one.release for one in log.releases(row["agent"])]
    release = next((one for one in releases if one.hash == row["release"]), None)
    if release is None:
        shown = row["release"][:SHOWN_HASH]
        return [("unknown", f"the release {shown} was never published")]
    found: list[tuple[Kind, str]] = []
    if row["agent_version"] != release.version:
        found.append(("version", f"the release is {release.version}"))
    if more := sorted(set(row["tools"]) - {tool.name for tool in release.tools}):
        found.append(("tools", f"not in the release: {', '.join(more)}"))
    if more := _other_models(row["models"], release):
        found.append(("models", f"not in the release: {', '.join(more)}"))
    return found


def _other_models(used: Iterable[str], release: Release) -> list[str]:
    named = {
        str(parameters[key])
        for parameters in (release.model, *(one.model for one in release.prompts.values()))
        for key in ("name", "model")
        if parameters.get(key)
    }
    named |= {_without_date(one) for one in named}
    return [one for one in sorted(set(used)) if named and _without_date(one) not in named]


def _without_date(model: str) -> str:
    """Providers answer with a dated snapshot of the model: gpt-4o-2024-08-06 for gpt-4o."""
    return _DATE.sub("", model)
