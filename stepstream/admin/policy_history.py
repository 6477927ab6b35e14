"""Which policies were in force when, read from the config topic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Message

from stepstream.admin import topics
from stepstream.admin.documents import REVISION_MARK, SEND_S
from stepstream.backtest.timeline import PolicyChange, Timeline
from stepstream.common.kafka import read_to_end
from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.documents import WrongDocument, decode_document
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

_PREFIX: Final = b"policy/"


@dataclass
class History:
    """The documents that a worker evaluated runs with, at each time."""

    timeline: Timeline
    prices: PriceBook
    unreadable: list[str] = field(default_factory=list)
    """Records that this version cannot read; they count for nothing."""
    deleted_at_unknown_times: list[str] = field(default_factory=list)
    """Policies that were deleted at a time that the topic does not have any more."""


def read_history(settings: Settings) -> History:
    """Read it. Raises ``KafkaUnreachable`` and ``TopicsError``."""
    name = topic(settings.topic_prefix, "config")
    topics.require_topic(settings, name)
    return history_of(read_to_end(settings, name, timeout=SEND_S))


def history_of(messages: Iterable[Message]) -> History:
    """The history in the records of the topic.

    A change is known by the revision that is kept of it, a deletion by the record without a value,
    until compaction removes that.
    """
    now = DocumentSet()
    found = History(Timeline(), PriceBook())
    changes: list[PolicyChange] = []
    for message in messages:
        key, value = message.key() or b"", message.value()
        try:
            now.apply(key, value)
            if key.startswith(_PREFIX):
                name = key.removeprefix(_PREFIX).decode("utf-8", "replace")
                changes += _changes(name, value, message.timestamp()[1])
        except (UnreadableDocument, WrongDocument) as error:
            found.unreadable.append(str(error))
    changes.sort(key=lambda change: change.at_us)
    in_effect = {policy.name for policy in now.of(Policy)}
    last = {change.name: change.policy for change in changes}
    found.deleted_at_unknown_times = sorted(n for n, p in last.items() if p and n not in in_effect)
    kept = tuple(change for change in changes if change.name not in found.deleted_at_unknown_times)
    found.timeline = Timeline((), kept, tuple(now.of(Criteria)))
    found.prices = now.price_book()
    return found


def _changes(name: str, value: bytes | None, timestamp_ms: int) -> list[PolicyChange]:
    policy_name, is_kept, _ = name.partition(REVISION_MARK)
    document = decode_document(value) if value else None
    if document is None and is_kept:
        return []
    policy = document if isinstance(document, Policy) else None
    return [PolicyChange(timestamp_ms * 1_000, policy_name, policy)]
