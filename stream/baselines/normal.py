"""What a run is compared with.

The newest baseline from before it began, chosen once and kept in its state.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, Protocol

from stepstream.schemas.fleet import BaselineValuesStruct, FleetBaselineStruct
from stepstream.stream.run.baseline import (
    AMOUNTS,
    COST,
    DURATION,
    LLM_CALLS,
    MEDIAN,
    SHARES,
    STEPS,
    TOKENS,
    Normal,
    Owner,
)

__all__ = ["COST", "DURATION", "LLM_CALLS", "MEDIAN", "STEPS", "TOKENS", "Baselines", "Normal"]

KEPT_VERSIONS: Final = 8
"""Versions of one owner's baseline: a replay needs the one that was in force when a run began."""


class Who(Protocol):
    """The owner of a run, whose baseline applies to it."""

    @property
    def project(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def task(self) -> str: ...


class Baselines:
    """The baselines of the fleet topic, as a worker knows them."""

    def __init__(self) -> None:
        self._versions: dict[Owner, tuple[Normal, ...]] = {}

    def apply(self, record: FleetBaselineStruct) -> None:
        """Take over a record. Records of one owner may come in any order, and again."""
        owner = Owner(record.project, record.environment, record.agent, record.task)
        known = {version.as_of: version for version in self._versions.get(owner, ())}
        for values in (record.earlier, record):
            if values is not None and values.as_of not in known:
                known[values.as_of] = _normal(owner, record.shares, values)
        self._versions[owner] = tuple(known[as_of] for as_of in sorted(known)[-KEPT_VERSIONS:])

    def forget(self, owner: Owner) -> None:
        """The owner's baseline was deleted."""
        self._versions.pop(owner, None)

    def pin(self, who: Who, before_us: int, wanted_runs: int) -> Normal | None:
        """The baseline for a run that began at ``before_us``.

        Of its task, agent or project, the first with enough runs.

        None if no rule needs a baseline. If none has enough runs the widest is returned: rules that
        need fewer may still use it. It never contains the run itself, because only runs that were
        closed before the run began are in it.
        """
        found: Normal | None = None
        if not wanted_runs or not self._versions:
            return None
        for owner in Owner(who.project, who.environment, who.agent, who.task).wider():
            versions = self._versions.get(owner)
            if versions is None:
                continue
            # The newest from before the run: a later one may contain the run itself.
            for version in reversed(versions):
                if version.as_of <= before_us:
                    if version.runs >= wanted_runs:
                        return version
                    found = version
                    break
        return found


def _normal(owner: Owner, shares: Iterable[float], values: BaselineValuesStruct) -> Normal:
    """The baseline of a record at ``SHARES``.

    If it was published at other shares, at the nearest ones above.
    """
    theirs = list(shares)
    return Normal(
        owner,
        values.as_of,
        values.runs,
        values.priced_runs,
        tuple(_at_our_shares(theirs, values.values.get(name, [])) for name in AMOUNTS),
    )


def _at_our_shares(shares: list[float], found: list[float]) -> tuple[float, ...]:
    if shares == list(SHARES) or not found:
        return tuple(found)
    return tuple(found[min(len(found) - 1, bisect_left(shares, share))] for share in SHARES)
