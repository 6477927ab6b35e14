"""Two runs side by side: their steps aligned by what they did, not by their number. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepstream.schemas.alignment import align, step_key, tree_order

_SAME: Final = ("kind", "name", "tool", "model")
_SHOWN: Final = ("step_id", "status", "duration_us", "cost_usd", "error_type")
COLUMNS: Final = ("match", *_SAME, *(f"{side}_{name}" for side in "ab" for name in _SHOWN))

Step = Mapping[str, Any]


def aligned(first: Sequence[Step], second: Sequence[Step]) -> list[list[Any]]:
    """A row for each step of either run, in the order of the tree, with the values of ``COLUMNS``.

    ``match`` is both, a or b: the runs that have the step.
    """
    left, right = ([steps[place] for place in tree_order(steps)] for steps in (first, second))
    return [
        _row(_at(left, pair.left), _at(right, pair.right))
        for pair in align(list(map(_key, left)), list(map(_key, right)))
    ]


def _at(steps: Sequence[Step], place: int | None) -> Step | None:
    return None if place is None else steps[place]


def _key(step: Step) -> tuple[str, str]:
    return step_key(step["kind"], step["name"], step["tool"], step["model"])


def _row(one: Step | None, other: Step | None) -> list[Any]:
    match = "a" if other is None else "b" if one is None else "both"
    known = one or other or {}
    values = [None if side is None else side[name] for side in (one, other) for name in _SHOWN]
    return [match, *(known[name] for name in _SAME), *values]


def sentence(rows: Sequence[Sequence[Any]]) -> str:
    """What the rows mean, in one line."""
    counts = {match: sum(row[0] == match for row in rows) for match in ("both", "a", "b")}
    return (
        f"{counts['both']:,} steps are the same in both runs, {counts['a']:,} only in the first, "
        f"{counts['b']:,} only in the second."
    )
