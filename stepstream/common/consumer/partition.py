"""A partition while it is assigned to this process, and what the process has to do when partitions
come and go.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from confluent_kafka import TopicPartition

Place = tuple[str, int]
"""Full name of a topic, and a partition."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A partition as the group assigned it, with what was committed last."""

    topic: str
    """The full name."""
    name: str
    """The name without prefix."""
    partition: int
    committed: int | None = None
    metadata: int | None = None
    """The number committed next to the offset; see ``commit_metadata``."""


class AssignedPartition:
    """What is known of an assigned partition. Subclasses add the work in progress.

    Compared by identity: a partition that leaves and comes back is another object.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.topic = assignment.topic
        self.name = assignment.name
        self.partition = assignment.partition
        self.cancelled = threading.Event()
        """Set once the partition is not ours any more: work for it in other threads should end."""
        self.start: int | None = None
        """Where to begin reading.

        While it is None the partition is paused; see ``GroupConsumer.resume_at``.
        """
        self.acknowledged: tuple[int, int | None] | None = None
        """The offset and the number that Kafka acknowledged last, of the commits made since it was
        assigned.
        """
        self.paused = False
        self.must_seek = False
        """Whether the consumer's own position may differ from the committed offset."""

    @property
    def place(self) -> Place:
        """The key of the partition within the process."""
        return (self.topic, self.partition)

    def at(self, offset: int, metadata: str = "") -> TopicPartition:
        """The partition with an offset, as the client takes it."""
        return TopicPartition(self.topic, self.partition, offset, metadata=metadata)

    def __repr__(self) -> str:
        return f"{self.name} {self.partition}"


P = TypeVar("P", bound=AssignedPartition)


class PartitionOwner(Protocol[P]):
    """The process behind a ``GroupConsumer``. All methods are called on the thread that reads."""

    def assigned(self, assignment: Assignment) -> P:
        """The object of a new partition.

        Set its ``start`` if it is known where to read on; else call ``resume_at`` as soon as it is.
        """

    def revoked(self, partitions: Sequence[P]) -> None:
        """Finish and commit what is possible: afterwards the partitions belong to others."""

    def dropped(self, partition: P) -> None:
        """The partition is gone, revoked or lost; ``cancelled`` is set."""
