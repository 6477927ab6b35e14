"""The partition runtime over a real Kafka: restore, commits with metadata, and fencing of a process
that stood still.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stepstream.common import kafka
from stepstream.common.commit_metadata import NOTIFIER
from stepstream.common.consumer import AssignedPartition, Assignment, GroupConsumer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.support.processes import wait_until
from tests.support.sink import create_topics

NAME = "alerts"
LOG = logging.getLogger("stepstream.test")
WAIT_S = 120


class Owner:
    """Takes partitions and reads each from its committed offset, or from the beginning."""

    def __init__(self) -> None:
        self.came: list[Assignment] = []
        self.gone: list[AssignedPartition] = []

    def assigned(self, assignment: Assignment) -> AssignedPartition:
        self.came.append(assignment)
        partition = AssignedPartition(assignment)
        partition.start = assignment.committed or 0
        return partition

    def revoked(self, partitions: Sequence[AssignedPartition]) -> None:
        pass

    def dropped(self, partition: AssignedPartition) -> None:
        self.gone.append(partition)


@contextmanager
def member(
    settings: Settings, *, cooperative: bool = True
) -> Iterator[tuple[GroupConsumer[AssignedPartition], Owner]]:
    """A member of the group that has got its partition."""
    owner = Owner()
    group: GroupConsumer[AssignedPartition] = GroupConsumer(
        settings, NOTIFIER, owner, [NAME], "readers", cooperative=cooperative, logger=LOG
    )
    group.join()
    try:

        def has_partition() -> bool:
            read(group)
            return bool(group.partitions)

        wait_until(has_partition, WAIT_S, "the partition")
        yield group, owner
    finally:
        group.close()


def read(group: GroupConsumer[AssignedPartition]) -> list[int]:
    """The offsets of what one round brings."""
    group.begin_round()
    received = group.read(100, 0.1, lambda message: message.offset() or 0, at_once=True)
    return [offset for offsets in received.records.values() for offset in offsets]


def test_the_next_member_gets_what_was_committed_and_its_metadata(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """Offset and number, also where the commit was not waited for."""
    settings = Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix)
    create_topics(settings)
    client = kafka.producer(settings)
    name = topic(topic_prefix, NAME)
    kafka.send_and_wait(client, [kafka.Outgoing(name, b"k", b"%d" % n) for n in range(10)], 60)
    with member(settings) as (group, owner):
        assert (owner.came[0].committed, owner.came[0].metadata) == (None, None)
        (partition,) = group.partitions.values()
        assert group.commit([(partition, 4, 17)]) == {partition}
        assert partition.acknowledged == (4, 17)
        group.commit_later([(partition, 6, 18)])

        def acknowledged() -> bool:
            read(group)  # callbacks are called while reading
            return partition.acknowledged == (6, 18)

        wait_until(acknowledged, WAIT_S, "the commit acknowledged")
    with member(settings) as (group, owner):
        assert (owner.came[0].committed, owner.came[0].metadata) == (6, 18)
        (partition,) = group.partitions.values()
        assert group.commit([(partition, 7, None)]) == {partition}
    with member(settings) as (group, owner):
        assert (owner.came[0].committed, owner.came[0].metadata) == (7, None)


def test_a_process_that_stood_still_commits_nothing_before_it_asked(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """Its partitions come again as new ones, read from what is committed by now."""
    settings = Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix)
    create_topics(settings)
    client = kafka.producer(settings)
    name = topic(topic_prefix, NAME)
    kafka.send_and_wait(client, [kafka.Outgoing(name, b"k", b"%d" % n) for n in range(10)], 60)
    with member(settings) as (group, owner):
        (before,) = group.partitions.values()
        assert group.commit([(before, 3, None)]) == {before}
        group.known_at -= 2 * group.fence_s  # as after a freeze
        assert not group.may_commit()
        assert group.commit([(before, 9, None)]) == set()
        assert group.begin_round()
        (after,) = group.partitions.values()
        assert after is not before
        assert before.cancelled.is_set()
        assert owner.gone == [before]
        assert after.assignment.committed == 3
        seen: list[int] = []

        def has_read_all() -> bool:
            seen.extend(read(group))
            return 9 in seen

        wait_until(has_read_all, WAIT_S, "the records again")
        assert seen[-7:] == [3, 4, 5, 6, 7, 8, 9]
