"""The topic ``releases``: its keys, and what its records add up to. Pure.

| key | record |
|---|---|
| ``release/AGENT@HASH`` | a release; written by ``stepstream build --publish`` |
| ``release/AGENT`` | the labels of the agent; written by the worker |
| ``promotion/AGENT/ID`` | a command; deleted by the worker with its decision |
| ``decision/AGENT/ID`` | a decision; written by the worker, and kept |

The topic is compacted, so each key keeps its newest record. It has one partition: the order of
its records is the order in which commands are decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from stepstream.schemas.config_drift import Configured, configured
from stepstream.schemas.promotion import (
    Decision,
    LabelHead,
    Promotion,
    ReleaseHead,
    decode_decision,
    decode_head,
    decode_promotion,
)
from stepstream.schemas.release import Release, WrongRelease, decode_release

TOPIC: Final = "releases"
MAX_RELEASES: Final = 10_000
"""Releases of all agents that a worker, a gateway and an agent know. Of more, the oldest that no
label names are forgotten; the topic keeps them."""
MAX_DECISIONS: Final = 10_000
"""Decisions that a worker and a gateway know, the newest; the topic keeps all."""
CONTENT_BYTES: Final = 64 * 2**20
"""Releases with contents in a gateway's memory, as they are on the topic."""
_NO_CONTENTS: Final[dict[str, Any]] = {"prompts": {}, "model": {}, "tools": (), "criteria": ()}


class UnreadableRelease(ValueError):
    """A record of the topic that is none of this version; the message names it."""


def release_key(release: Release) -> str:
    """The key of a release."""
    return f"release/{release.agent}@{release.hash}"


def head_key(agent: str) -> str:
    """The key of an agent's labels."""
    return f"release/{agent}"


def promotion_key(promotion: Promotion) -> str:
    """The key of a command."""
    return f"promotion/{promotion.agent}/{promotion.id}"


def decision_key(promotion: Promotion) -> str:
    """The key of the decision about a command."""
    return f"decision/{promotion.agent}/{promotion.id}"


@dataclass(frozen=True, slots=True)
class Published:
    """A release as the topic has it."""

    release: Release
    offset: int
    timestamp_ms: int
    configured: Configured
    is_complete: bool = True
    """False: prompts, model, tools and criteria are not in memory."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of the topic is kept in memory."""

    content_bytes: int = 2**63
    """Releases with their contents: prompts, model, tools and criteria are most of their size."""
    releases: int = 2**63
    decisions: int = 2**63


UNBOUNDED: Final = Bounds()
IN_A_WORKER: Final = Bounds(0, MAX_RELEASES, MAX_DECISIONS)
IN_A_GATEWAY: Final = Bounds(CONTENT_BYTES, MAX_RELEASES, MAX_DECISIONS)
# Few megabytes, because an agent uses one release; the others are there for `follow`.
IN_AN_AGENT: Final = Bounds(4 * 2**20, MAX_RELEASES, MAX_DECISIONS)


class ReleaseLog:
    """What the records of the topic add up to. Records are applied in the order of their offsets,
    and applying one again changes nothing.
    """

    def __init__(self, bounds: Bounds = UNBOUNDED) -> None:
        self._bounds = bounds
        self._releases: dict[str, Published] = {}
        self._sizes: dict[str, int] = {}
        """Bytes of the releases with contents, in the order in which they were applied."""
        self._content_bytes = 0
        self._agents: Counter[str] = Counter()
        """The number of releases of each agent."""
        self.forgotten = 0
        """Releases that the bounds have removed."""
        self._heads: dict[str, ReleaseHead] = {}
        self._pending: dict[str, tuple[int, Promotion]] = {}
        self._decisions: dict[str, tuple[int, Decision]] = {}

    def apply(self, key: str, value: bytes | None, offset: int, timestamp_ms: int = 0) -> bool:
        """Apply a record; returns whether its agent has other releases or labels now.

        Raises ``UnreadableRelease`` for one that cannot be read; it then counts for nothing.
        """
        kind, _, name = key.partition("/")
        try:
            if kind == "release" and "@" in name:
                return self._apply_release(key, value, offset, timestamp_ms)
            if kind == "release":
                return self._apply_head(name, value)
            if kind == "promotion":
                self._apply_promotion(key, value, offset)
            elif kind == "decision":
                self._apply_decision(key, value, offset)
            else:
                raise UnreadableRelease(f"{key!r} is no key of this topic")
        except (WrongRelease, RecursionError, ValueError) as error:
            raise UnreadableRelease(f"{key} on the topic releases is ignored: {error}") from error
        return False

    def _apply_release(self, key: str, value: bytes | None, offset: int, timestamp_ms: int) -> bool:
        if not value:
            return self._forget(key)
        release = decode_release(value)
        if release_key(release) != key:
            raise WrongRelease(f"it contains {release.title} with the hash {release.short_hash}")
        if key in self._releases:  # the same content, published again
            return False
        self._releases[key] = Published(release, offset, timestamp_ms, configured(release))
        self._agents[release.agent] += 1
        self._sizes[key] = len(value)
        self._content_bytes += len(value)
        self._keep_bounds()
        return True

    def _keep_bounds(self) -> None:
        while len(self._releases) > self._bounds.releases:
            self._forget(self._oldest(self._releases))
            self.forgotten += 1
        while self._content_bytes > self._bounds.content_bytes:
            key = self._oldest(self._sizes)
            self._content_bytes -= self._sizes.pop(key)
            one = self._releases[key]
            stripped = one.release.model_copy(update=_NO_CONTENTS)
            self._releases[key] = replace(one, release=stripped, is_complete=False)

    def _oldest(self, keys: Iterable[str]) -> str:
        """The first one that no label names; where labels name all, the first."""
        keys = iter(keys)
        first = next(keys)
        return next((key for key in chain((first,), keys) if not self._is_labelled(key)), first)

    def _is_labelled(self, key: str) -> bool:
        release = self._releases[key].release
        head = self._heads.get(release.agent)
        return head is not None and any(one.release == release.hash for one in head.labels.values())

    def _forget(self, key: str) -> bool:
        self._content_bytes -= self._sizes.pop(key, 0)
        published = self._releases.pop(key, None)
        if published is None:
            return False
        self._agents[published.release.agent] -= 1
        return True

    def _apply_head(self, agent: str, value: bytes | None) -> bool:
        if not value:
            return self._heads.pop(agent, None) is not None
        head = decode_head(value)
        if head.agent != agent:
            raise ValueError(f"it contains the labels of {head.agent}")
        before = self._heads.get(agent)
        # Read again from an earlier offset, an older record must not replace a newer one.
        if before is not None and head.changes < before.changes:
            return False
        self._heads[agent] = head
        return before != head

    def _apply_promotion(self, key: str, value: bytes | None, offset: int) -> None:
        if not value:
            self._pending.pop(key, None)
            return
        promotion = decode_promotion(value)
        if promotion_key(promotion) != key:
            raise ValueError("the command in it has another agent or id")
        # A command that is read again, after its decision, is no new one.
        if decision_key(promotion) not in self._decisions:
            self._pending.setdefault(key, (offset, promotion))

    def _apply_decision(self, key: str, value: bytes | None, offset: int) -> None:
        if not value:
            return
        decision = decode_decision(value)
        if decision_key(decision.promotion) != key:
            raise ValueError("the decision in it has another agent or id")
        self._decisions.setdefault(key, (offset, decision))
        if len(self._decisions) > self._bounds.decisions:
            # Its command was deleted with it, so that it is not decided again.
            del self._decisions[next(iter(self._decisions))]
        self._pending.pop(promotion_key(decision.promotion), None)

    # -- what it adds up to --------------------------------------------------------------------

    def pending(self) -> list[tuple[int, Promotion]]:
        """The commands without a decision and their offsets, in log order."""
        return sorted(self._pending.values(), key=lambda one: one[0])

    def decision(self, promotion: Promotion) -> Decision | None:
        """The decision about a command, once there is one."""
        found = self._decisions.get(decision_key(promotion))
        return None if found is None else found[1]

    def decisions(self, agent: str) -> list[Decision]:
        """The decisions about an agent's labels, in log order."""
        found = [one for one in self._decisions.values() if one[1].promotion.agent == agent]
        return [decision for _, decision in sorted(found, key=lambda one: one[0])]

    def agents(self) -> list[str]:
        """Every agent with a release, sorted."""
        return sorted({one.release.agent for one in self._releases.values()})

    def releases(self, agent: str) -> list[Published]:
        """The releases of an agent, in log order. Of a version that was published with different
        contents at the same time, only the first is one.
        """
        first: dict[str, Published] = {}
        for one in sorted(self._releases.values(), key=lambda one: one.offset):
            if one.release.agent == agent:
                first.setdefault(one.release.version, one)
        return list(first.values())

    def has_releases(self, agent: str) -> bool:
        """Whether any was published."""
        return self._agents[agent] > 0

    def configured(self, agent: str, release: str) -> Configured | None:
        """What runs with the release of this hash are compared with."""
        found = self._releases.get(f"{head_key(agent)}@{release}")
        return None if found is None else found.configured

    def head(self, agent: str) -> ReleaseHead | None:
        """The labels of an agent; None where it never had any."""
        return self._heads.get(agent)

    def label(self, agent: str, label: str) -> LabelHead | None:
        """What a label names."""
        head = self._heads.get(agent)
        return None if head is None else head.labels.get(label)

    def find(self, agent: str, name: str) -> Release | None:
        """The release that a label, a version, or a hash (at least 6 digits) names."""
        found = self.find_published(agent, name)
        return None if found is None else found.release

    def find_published(self, agent: str, name: str) -> Published | None:
        """The same; with bounds, it may be without its contents."""
        head = self.label(agent, name)
        releases = self.releases(agent)
        if head is not None:
            return next((one for one in releases if one.release.hash == head.release), None)
        exact = next((one for one in releases if one.release.version == name), None)
        if exact is not None or len(name) < 6:
            return exact
        found = [one for one in releases if one.release.hash.startswith(name.lower())]
        return found[0] if len(found) == 1 else None
