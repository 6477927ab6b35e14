"""Which policies were in effect when, from the records of the config topic."""

from __future__ import annotations

from typing import Any, cast

from confluent_kafka import Message

from stepstream.admin.policy_history import History, history_of
from stepstream.schemas.policy import Policy


class Sent:
    """A record as confluent-kafka returns it."""

    def __init__(self, key: str, value: str | None, at_ms: int) -> None:
        self._given = (key.encode(), None if value is None else value.encode(), at_ms)

    def key(self) -> bytes:
        return self._given[0]

    def value(self) -> bytes | None:
        return self._given[1]

    def timestamp(self) -> tuple[int, int]:
        return (1, self._given[2])


def policy(name: str, revision: int) -> str:
    return Policy(name=name, revision=revision).model_dump_json()


def history(*records: Sent) -> History:
    return history_of(cast("list[Message]", records))


def names(found: History) -> list[tuple[int, str, int | None]]:
    changes: list[Any] = list(found.timeline.changes)
    return [(one.at_us, one.name, one.policy and one.policy.revision) for one in changes]


def test_every_kept_revision_is_a_change() -> None:
    """Of the records in effect, compaction has kept the newest; a deletion is one as well."""
    found = history(
        Sent("policy/a@1", policy("a", 1), 10),
        Sent("policy/b@1", policy("b", 1), 20),
        Sent("policy/a@2", policy("a", 2), 30),
        Sent("policy/a", policy("a", 2), 30),
        Sent("policy/b", None, 40),
        Sent("subscription/s", "{", 50),
    )
    assert names(found) == [
        (10_000, "a", 1), (20_000, "b", 1), (30_000, "a", 2), (30_000, "a", 2), (40_000, "b", None),
    ]  # fmt: skip
    assert (found.unreadable, found.deleted_at_unknown_times) == ([], [])


def test_a_deletion_that_compaction_removed_is_reported() -> None:
    """Its policy may have been in effect for any time, so it counts for nothing."""
    found = history(Sent("policy/a@1", policy("a", 1), 10), Sent("policy/b", policy("b", 0), 20))
    assert names(found) == [(20_000, "b", 0)]
    assert found.deleted_at_unknown_times == ["a"]


def test_a_record_that_cannot_be_read_hides_no_other() -> None:
    found = history(
        Sent("policy/a", "{", 5),
        Sent("policy/b", policy("b", 1), 10),
        Sent("policy/c@1", '{"kind": "Polcy"}', 15),
    )
    assert names(found) == [(10_000, "b", 1)]
    assert len(found.unreadable) == 2
