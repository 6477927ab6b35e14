"""Two runs side by side: their steps aligned by what they did, not by their number. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

MAX_STEPS: Final = 3_000
"""Of each run: aligning takes time quadratic in the number."""
_SAME: Final = ("kind", "name", "tool", "model")
_SHOWN: Final = ("step_id", "status", "duration_us", "cost_usd", "error_type")
COLUMNS: Final = ("match", *_SAME, *(f"{side}_{name}" for side in "ab" for name in _SHOWN))

Step = Mapping[str, Any]


def aligned(first: Sequence[Step], second: Sequence[Step]) -> list[list[Any]]:
    """A row for each step of either run, in order, with the values of ``COLUMNS``.

    ``match`` is both, a or b: the runs that have the step. An inserted step does not shift the
    steps after it.
    """
    keys = [[tuple(step[name] for name in _SAME) for step in steps] for steps in (first, second)]
    rows: list[list[Any]] = []
    matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for what, a, a_end, b, b_end in matcher.get_opcodes():
        if what == "equal":
            pairs = zip(first[a:a_end], second[b:b_end], strict=True)
            rows += [_row("both", one, other) for one, other in pairs]
        else:
            rows += [_row("a", one, None) for one in first[a:a_end]]
            rows += [_row("b", None, other) for other in second[b:b_end]]
    return rows


def _row(match: str, one: Step | None, other: Step | None) -> list[Any]:
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
