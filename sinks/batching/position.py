"""Where to resume a partition, from what Kafka has committed and what the store holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """Resume at ``offset``; where ``replay_end`` is set, with the batch that ends there."""

    offset: int
    replay_end: int | None = None
    stored: int | None = None
    """The highest offset of the partition in the store, as far as it was asked for."""
    note: str = ""
    """What is unusual about it, for the log."""


def resume_position(
    committed: int | None,
    batch_end: int | None,
    stored: int | None,
    *,
    low: int = 0,
    high: int | None = None,
) -> Position:
    """Decide where to resume.

    ``batch_end`` is the metadata of the committed offset: the end of the batch whose result is
    unknown. ``low`` and ``high`` are the ends of the log, needed where nothing is committed.
    """
    if committed is None:
        return _without_commit(stored, low, high)
    if batch_end is None:
        return Position(committed, None, stored)
    if stored is not None and stored > batch_end:
        # Later batches are stored, and they are only begun when the one before is.
        note = f"the pending batch {committed}-{batch_end} is stored already"
        return Position(batch_end + 1, None, stored, note)
    return Position(committed, batch_end, stored)


def _without_commit(stored: int | None, low: int, high: int | None) -> Position:
    """Offsets expire (offsets.retention.minutes).

    Then the newest row shows how far the sink got.
    """
    if stored is None:
        return Position(low)
    if high is not None and stored >= high:
        note = (
            f"the log ends at {high}, before the store's offset {stored}: reading it from its start"
        )
        return Position(low, None, stored, note)
    note = f"no offset is committed: resuming after the store's offset {stored}"
    return Position(stored + 1, None, stored, note)
