"""The Kafka partition runtime: a member of a consumer group that commits its own positions.

See ``group``.
"""

from stepstream.common.consumer.group import GroupConsumer, Received
from stepstream.common.consumer.partition import AssignedPartition, Assignment, PartitionOwner
from stepstream.common.consumer.unreadable import SkippedBatch

__all__ = [
    "AssignedPartition",
    "Assignment",
    "GroupConsumer",
    "PartitionOwner",
    "Received",
    "SkippedBatch",
]
