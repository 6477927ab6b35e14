"""How the configuration of a run differs from the releases of its agent: its ``config_drift``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, Protocol

from stepstream.schemas.release import Release

Kind = Literal["none", "unknown", "version", "tools", "models"]
KINDS: Final[dict[Kind, str]] = {
    "none": "no release was used, although the agent has some",
    "unknown": "the release was never published",
    "version": "the run carries another version than its release",
    "tools": "tools were called that the release does not have",
    "models": "models were used that the release does not name",
}
_DATE: Final = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")


class Configured(NamedTuple):
    """What of a release can be compared with a run."""

    version: str
    tools: frozenset[str]
    models: frozenset[str]
    """Without the dates of snapshots; empty: the release names no model."""


class Used(NamedTuple):
    """What a run used."""

    agent: str
    agent_version: str
    release: str
    """The hash of the release; empty: none."""
    tools: Iterable[str]
    models: Iterable[str]


class Releases(Protocol):
    """The releases of all agents."""

    def has_releases(self, agent: str) -> bool:
        """Whether any was published."""

    def configured(self, agent: str, release: str) -> Configured | None:
        """The release of the agent with a hash; None if it was never published."""


class NoReleases:
    """Of an installation without releases."""

    def has_releases(self, _agent: str) -> bool:
        return False

    def configured(self, _agent: str, _release: str) -> Configured | None:
        return None


def configured(release: Release) -> Configured:
    """What is compared with runs."""
    parameters = (release.model, *(one.model for one in release.prompts.values()))
    named = {
        _without_date(str(given[key]))
        for given in parameters
        for key in ("name", "model")
        if given.get(key)
    }
    return Configured(
        release.version, frozenset(tool.name for tool in release.tools), frozenset(named)
    )


def config_drift(used: Used, releases: Releases) -> list[tuple[Kind, tuple[str, ...]]]:
    """Each kind of difference, with the names that are not in the release.

    Runs of an agent without releases have none.
    """
    if not releases.has_releases(used.agent):
        return []
    if not used.release:
        return [("none", ())]
    release = releases.configured(used.agent, used.release)
    if release is None:
        return [("unknown", ())]
    found: list[tuple[Kind, tuple[str, ...]]] = []
    if used.agent_version != release.version:
        found.append(("version", (release.version,)))
    if more := sorted(set(used.tools) - release.tools):
        found.append(("tools", tuple(more)))
    if more := sorted(name for name in set(used.models) if _is_other(name, release)):
        found.append(("models", tuple(more)))
    return found


def _is_other(model: str, release: Configured) -> bool:
    return bool(release.models) and _without_date(model) not in release.models


def _without_date(model: str) -> str:
    """Providers answer with a dated snapshot of the model: gpt-4o-2024-08-06 for gpt-4o."""
    return _DATE.sub("", model)
