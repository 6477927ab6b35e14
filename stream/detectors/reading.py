"""How much of a run each detector reads and compares at most.

Both are counted in characters and comparisons, never in time, and the counts are part of the run's
state: a replay of the log stops at the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

MAX_READ: Final = 4_000_000
"""Characters of a run's inputs and outputs that a detector reads: about 250 steps of full size,
0.1 s of CPU for all default detectors."""
MAX_COMPARED: Final = 200_000
"""Comparisons of steps with each other that a detector makes for a run: about 0.1 s of CPU."""
STEPS_OF_A_COMPARISON: Final = 8
"""Reading a step's kind and times, or finding one number in another, costs an eighth of it."""

# Up to this number of characters one count is kept for all detectors, as most runs have fewer.
_COUNTED_TOGETHER: Final = MAX_READ // 4
# No rule's name has a bar in it.
_READ: Final = "|read"
_COMPARED: Final = "compared"


class Reader(Protocol):
    """A detector that reads contents."""

    def wants_content(self, kind: str) -> bool:
        """Whether it reads the contents of steps of a kind."""
        ...


R = TypeVar("R", bound=Reader)


def within_budget(
    state: dict[str, Any], readers: Sequence[R], kind: str, characters: int
) -> Sequence[R]:
    """The detectors that still read a run, after a further step of ``kind`` with this many
    characters. ``state`` is the state of the run's detectors.
    """
    read: int | dict[str, int] = state.get(_READ, 0)
    if isinstance(read, int):
        together = read + characters
        if together <= _COUNTED_TOGETHER:
            state[_READ] = together
            return readers
        # What was read until here counts for each.
        state[_READ] = read = {"": together}
    else:
        read[kind] = read.get(kind, 0) + characters
    if sum(read.values()) <= MAX_READ:
        return readers
    return [
        reader
        for reader in readers
        if sum(n for other, n in read.items() if not other or reader.wants_content(other))
        <= MAX_READ
    ]


def may_compare(own: dict[str, Any], number: int) -> bool:
    """Whether a detector may compare this many more pairs for a run; counts them in its state of
    the run.
    """
    compared: int = own.get(_COMPARED, 0) + number
    if compared > MAX_COMPARED:
        return False
    own[_COMPARED] = compared
    return True
