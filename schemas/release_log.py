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

from dataclasses import dataclass
from typing import Any, Final

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


class ReleaseLog:
    """What the records of the topic add up to. Records are applied in the order of their offsets,
    and applying one again changes nothing.
    """

    def __init__(self, *, keeps_contents: bool = True) -> None:
        """Without ``keeps_contents`` the releases are without prompts, model, tools and criteria,
        which are most of their size; all else is the same.
        """
        self._keeps_contents = keeps_contents
        self._releases: dict[str, Published] = {}
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
            return self._releases.pop(key, None) is not None
        release = decode_release(value)
        if release_key(release) != key:
            raise WrongRelease(f"it contains {release.title} with the hash {release.short_hash}")
        if key in self._releases:  # the same content, published again
            return False
        if not self._keeps_contents:
            release = release.model_copy(update=_NO_CONTENTS)
        self._releases[key] = Published(release, offset, timestamp_ms)
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

    def head(self, agent: str) -> ReleaseHead | None:
        """The labels of an agent; None where it never had any."""
        return self._heads.get(agent)

    def label(self, agent: str, label: str) -> LabelHead | None:
        """What a label names."""
        head = self._heads.get(agent)
        return None if head is None else head.labels.get(label)

    def find(self, agent: str, name: str) -> Release | None:
        """The release that a label, a version, or a hash (at least 6 digits) names."""
        head = self.label(agent, name)
        releases = [one.release for one in self.releases(agent)]
        if head is not None:
            return next((one for one in releases if one.hash == head.release), None)
        exact = next((one for one in releases if one.version == name), None)
        if exact is not None or len(name) < 6:
            return exact
        found = [one for one in releases if one.hash.startswith(name.lower())]
        return found[0] if len(found) == 1 else None
