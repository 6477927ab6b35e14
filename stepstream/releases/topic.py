"""Reads and writes the topic ``releases``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, Literal

from stepstream.admin import topics
from stepstream.common.kafka import Follower, Outgoing, producer, send_and_wait
from stepstream.common.release_topic import apply_messages, read_releases, release_topic
from stepstream.schemas import release_log
from stepstream.schemas.promotion import Decision, Promotion
from stepstream.schemas.release import SHOWN_HASH, Release, encode_release
from stepstream.schemas.release_log import Published, ReleaseLog
from stepstream.schemas.settings import Settings

SEND_S: Final = 30.0
CHECK_S: Final = 0.2


class ReleaseConflict(Exception):
    """The version was published before, with other content."""


class Undecided(Exception):
    """No worker has decided about a promotion in time; the command stays in the log."""


def read_log(settings: Settings) -> ReleaseLog:
    """Everything on the topic. Raises ``KafkaUnreachable`` and ``TopicsError``."""
    topics.require_topic(settings, release_topic(settings))
    return read_releases(settings)


def publish(settings: Settings, release: Release) -> Literal["published", "unchanged"]:
    """Put a release on the topic, once.

    Raises ``ReleaseConflict`` where the version has other content, ``KafkaUnreachable`` and
    ``TopicsError``.
    """
    if _is_published(read_log(settings), release):
        return "unchanged"
    _send(settings, release_log.release_key(release), encode_release(release))
    # Read again: another publication of this version may have come first.
    _is_published(read_log(settings), release)
    return "published"


def _is_published(log: ReleaseLog, release: Release) -> bool:
    found = _version(log.releases(release.agent), release.version)
    if found is None:
        return False
    if found.hash != release.hash:
        raise ReleaseConflict(
            f"{release.title} was published with other content (hash {found.short_hash}, this one "
            f"is {release.hash[:SHOWN_HASH]}): a release never changes, so choose another version"
        )
    return True


def _version(releases: Iterable[Published], version: str) -> Release | None:
    return next((one.release for one in releases if one.release.version == version), None)


def send_promotion(settings: Settings, promotion: Promotion) -> None:
    """Put a command on the topic. Raises ``KafkaUnreachable``."""
    _send(settings, release_log.promotion_key(promotion), promotion.model_dump_json().encode())


def await_decision(settings: Settings, promotion: Promotion, timeout_s: float) -> Decision:
    """The worker's decision about a command. Raises ``Undecided`` and ``KafkaUnreachable``."""
    deadline = time.monotonic() + timeout_s
    log = ReleaseLog()
    follower = Follower(settings, release_topic(settings))
    try:
        while time.monotonic() < deadline:
            apply_messages(log, follower.poll(CHECK_S))
            decision = log.decision(promotion)
            if decision is not None:
                return decision
    finally:
        follower.close()
    raise Undecided(
        f"no worker has decided within {timeout_s:.0f} s: is one running? The command stays in the "
        f"log for an hour; `stepstream releases {promotion.agent}` shows its outcome"
    )


def _send(settings: Settings, key: str, value: bytes) -> None:
    client = producer(settings, **{"message.timeout.ms": round(SEND_S * 1000), "log_level": 0})
    headers = [("content-type", b"application/json")]
    name = release_topic(settings)
    send_and_wait(client, [Outgoing(name, key.encode(), value, headers)], SEND_S + 5)
