"""The position of the usage stage of a partition.

With the windows, all that its next findings and windows depend on.
"""

from __future__ import annotations

import msgspec

from stepstream.stream.usage.windows.evaluation import EvaluationState

CHECKPOINT_VERSION = 1
KEY_PREFIX = b"!windows|"


class UnknownCheckpoint(Exception):
    """Written by a worker that this one does not understand: start the newer worker."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """State after all records before offset ``through``. New fields are added with defaults."""

    version: int = CHECKPOINT_VERSION
    through: int
    sealed_until: int
    watermark_us: int
    # The names in the record are those of the first release.
    evaluated_us: int = msgspec.field(name="judged_us")
    progress: dict[int, int]
    evaluation: EvaluationState = msgspec.field(name="judge")


_decode = msgspec.json.Decoder(Checkpoint).decode
_encode = msgspec.json.Encoder().encode


def checkpoint_key(through: int) -> bytes:
    """The key of a checkpoint on the fleet topic.

    Each has its own: of one key compaction keeps the last record, and that may be a zombie's, which
    is older.
    """
    return KEY_PREFIX + str(through).encode()


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The record of a checkpoint."""
    return _encode(checkpoint)


def decode_checkpoint(value: bytes) -> Checkpoint:
    """The checkpoint in a record. Raises ``UnknownCheckpoint``."""
    version = msgspec.json.decode(value, type=_Version).version
    if version != CHECKPOINT_VERSION:
        raise UnknownCheckpoint(
            f"checkpoint version {version}; this worker reads {CHECKPOINT_VERSION}"
        )
    return _decode(value)


class _Version(msgspec.Struct):
    version: int
