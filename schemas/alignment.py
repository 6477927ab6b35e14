"""Two runs aligned by what their steps did: one rule for the console and the terminal. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

MAX_EDITS: Final = 500
"""Above this many different steps the exact alignment takes too long; the rest is aligned with a
limited distance."""
MAX_DISTANCE: Final = 200


class Pair(NamedTuple):
    """Positions of two steps that correspond; None where a run has no such step."""

    left: int | None
    right: int | None


def step_key(kind: str, name: str, tool: str, model: str) -> tuple[str, str]:
    """What makes two steps of different runs the same work: the kind, and the tool or the name.

    A call of another model is the same work: instrumentations write the model into the name
    (``chat gpt-4o``), so it is taken out.
    """
    if tool:
        return kind, tool
    return kind, " ".join(name.replace(model, "").split()) if model else name


def tree_order(steps: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions of steps: parents before their children, siblings by start.

    A step whose parent is missing, or in a circle of parents, stands at the top level. ``steps``
    have ``step_id``, ``parent_step_id`` and ``start_us``.
    """
    at = {step["step_id"]: place for place, step in enumerate(steps)}
    by_start = sorted(at.values(), key=lambda place: (steps[place]["start_us"], place))
    below: dict[int | None, list[int]] = {}
    for place in by_start:
        below.setdefault(at.get(steps[place]["parent_step_id"]), []).append(place)
    order: list[int] = []
    seen: set[int] = set()
    # Circles are reached from no top: their earliest step is taken for one. Most often there are
    # none, and the second pass finds every step seen.
    for top in (*below.get(None, ()), *by_start):
        # A stack instead of recursion: agents produce chains deeper than the recursion limit.
        waiting = [top]
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            order.append(place)
            waiting += reversed(below.get(place, ()))
    return order


def align(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Pair]:
    """Pairs of positions in order, with as many equal keys together as possible.

    A step that one run has more does not shift the steps after it. Of different steps in the same
    place those of ``left`` come first. Time grows with the number of steps times the number of
    differences (Myers 1986, "An O(ND) difference algorithm").
    """
    start = 0
    end = min(len(left), len(right))
    while start < end and left[start] == right[start]:
        start += 1
    tail = 0
    while tail < end - start and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    middle_left, middle_right = left[start : len(left) - tail], right[start : len(right) - tail]
    equal = _exact(middle_left, middle_right)
    if equal is None:
        equal = _ahead(middle_left, middle_right)
    pairs = [Pair(place, place) for place in range(start)]
    pairs += _filled(equal, len(middle_left), len(middle_right), start)
    ends = range(-tail, 0)
    return pairs + [Pair(len(left) + place, len(right) + place) for place in ends]


def _exact(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[tuple[int, int]] | None:
    """Positions of equal keys of a longest common subsequence; None above ``MAX_EDITS``."""
    n, m = len(left), len(right)
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(n + m, MAX_EDITS) + 1):
        history.append(dict(furthest))
        for diagonal in range(-edits, edits + 1, 2):
            is_down = diagonal == -edits or (
                diagonal != edits
                and furthest.get(diagonal - 1, -1) < furthest.get(diagonal + 1, -1)
            )
            x = furthest[diagonal + 1] if is_down else furthest[diagonal - 1] + 1
            y = x - diagonal
            while x < n and y < m and left[x] == right[y]:
                x, y = x + 1, y + 1
            furthest[diagonal] = x
            if x >= n and y >= m:
                return _walked_back(history, n, m)
    return None


def _walked_back(history: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    equal: list[tuple[int, int]] = []
    for edits in range(len(history) - 1, -1, -1):
        furthest, diagonal = history[edits], x - y
        is_down = diagonal == -edits or (
            diagonal != edits and furthest.get(diagonal - 1, -1) < furthest.get(diagonal + 1, -1)
        )
        before = diagonal + 1 if is_down else diagonal - 1
        before_x = furthest[before] if edits else 0
        before_y = before_x - before if edits else 0
        while x > before_x and y > before_y:
            x, y = x - 1, y - 1
            equal.append((x, y))
        x, y = before_x, before_y
    return equal[::-1]


def _ahead(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[tuple[int, int]]:
    """As ``_exact`` for very different runs; a step is found ``MAX_DISTANCE`` ahead at most."""
    equal: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            equal.append((i, j))
            i, j = i + 1, j + 1
            continue
        # One step replaced by another: without this a repeated name far ahead would be taken.
        if left[i + 1 : i + 2] == right[j + 1 : j + 2]:
            i, j = i + 1, j + 1
            continue
        in_right = _found(left[i], right, j)
        in_left = _found(right[j], left, i)
        if in_left is not None and (in_right is None or in_left - i <= in_right - j):
            i = in_left
        elif in_right is not None:
            j = in_right
        else:
            i, j = i + 1, j + 1
    return equal


def _found(key: Hashable, keys: Sequence[Hashable], start: int) -> int | None:
    end = min(len(keys), start + MAX_DISTANCE)
    return next((place for place in range(start, end) if keys[place] == key), None)


def _filled(equal: Iterable[tuple[int, int]], n: int, m: int, offset: int) -> list[Pair]:
    """The pairs of equal steps, and between them the steps of one run alone."""
    pairs: list[Pair] = []
    i = j = 0
    for x, y in (*equal, (n, m)):
        pairs += [Pair(offset + place, None) for place in range(i, x)]
        pairs += [Pair(None, offset + place) for place in range(j, y)]
        if (x, y) != (n, m):
            pairs.append(Pair(offset + x, offset + y))
        i, j = x + 1, y + 1
    return pairs
