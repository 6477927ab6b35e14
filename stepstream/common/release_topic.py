"""Reads the topic ``releases``, for every process that needs releases or labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from stepstream.common.kafka import read_to_end
from stepstream.schemas.release import Release, decode_release
from stepstream.schemas.release_log import (
    TOPIC,
    Published,
    ReleaseLog,
    UnreadableRelease,
    head_key,
    release_key,
)
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

READ_S: Final = 30.0
_log = logging.getLogger("stepstream.releases")


class ConsumedMessage(Protocol):
    """What is read of a message that confluent-kafka consumed."""

    def key(self) -> str | bytes | None: ...
    def value(self) -> str | bytes | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def release_topic(settings: Settings) -> str:
    """The full name of the topic."""
    return topic(settings.topic_prefix, TOPIC)


def apply_messages(
    log: ReleaseLog,
    messages: Iterable[ConsumedMessage],
    refused: Callable[[ConsumedMessage, UnreadableRelease], object] | None = None,
    *,
    only: str = "",
) -> bool:
    """Apply consumed records; returns whether releases or labels changed.

    With ``only`` those with the releases and labels of one agent. ``refused`` is called with each
    record that cannot be read; by default it is logged.
    """
    changed, forgotten = False, log.forgotten
    for message in messages:
        key = _text(message.key())
        if only and not (key == head_key(only) or key.startswith(f"{head_key(only)}@")):
            continue
        value = message.value()
        data = value.encode() if isinstance(value, str) else value
        try:
            changed |= log.apply(key, data, message.offset() or 0, message.timestamp()[1])
        except UnreadableRelease as error:
            if refused is None:
                _log.warning("%s", error)
            else:
                refused(message, error)
    if log.forgotten > forgotten:
        _log.warning(
            "there are more releases than are kept in memory: %s old ones that no label names were "
            "forgotten; they can be neither loaded nor promoted",
            f"{log.forgotten:,}",
        )
    return changed


def _text(key: str | bytes | None) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key or ""


def read_releases(
    settings: Settings, log: ReleaseLog | None = None, *, timeout_s: float = READ_S
) -> ReleaseLog:
    """Everything on the topic, in ``log`` or a new one; nothing where it does not exist.

    Raises ``KafkaUnreachable``.
    """
    log = log or ReleaseLog()
    apply_messages(log, read_to_end(settings, release_topic(settings), timeout=timeout_s))
    return log


def read_contents(settings: Settings, published: Published) -> Release | None:
    """The release with its contents, read from the topic; None if it is not there any more.

    Raises ``KafkaUnreachable``.
    """
    key = release_key(published.release)
    name = release_topic(settings)
    # From its offset on: if it was published twice, compaction has kept the later record.
    for message in read_to_end(settings, name, [0], offset=published.offset, timeout=READ_S):
        value = message.value()
        if _text(message.key()) == key and value:
            return decode_release(value)
    return None
