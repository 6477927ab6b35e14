"""Chooses which steps are drawn and in which order: a bounded list of lines of a tree.

Works for any input: missing parents, several roots, cycles of parents, chains of any depth, any
number of steps. Iterative, so that deep trees need no stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from stepstream.render.rows import StepRow

MAX_DEPTH: Final = 12
"""Deeper steps are drawn at this depth, in order: a line must keep room for its name."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Steps left out in one place, summed up."""

    steps: int
    names: tuple[tuple[str, int], ...]
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the tree: a step, or the steps left out there. ``more``: by level, whether siblings
    follow.
    """

    step: StepRow | None
    more: tuple[bool, ...]
    note: str = ""
    hidden: Hidden | None = None


@dataclass(slots=True)
class _Tree:
    roots: list[StepRow] = field(default_factory=list)
    children: dict[str, list[StepRow]] = field(default_factory=dict)
    parent: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    order: list[StepRow] = field(default_factory=list)


def arrange(
    steps: Iterable[StepRow], *, limit: int = 200, keep: frozenset[str] = frozenset()
) -> list[Line]:
    """The lines to draw. Above ``limit`` steps, those that matter stay, with their ancestors.

    Steps are chosen in this order: roots, steps in ``keep`` (an alert's evidence), failed and open
    ones, the most expensive, the longest, and then the first of the rest. What is left out is
    counted where it stood.
    """
    tree = _grow(steps)
    shown = {step.step_id for step in tree.order}
    if len(shown) > limit:
        shown = _select(tree, limit, keep)
    return list(_lines(tree, shown))


def _grow(steps: Iterable[StepRow]) -> _Tree:
    by_id: dict[str, StepRow] = {}
    for step in steps:
        known = by_id.get(step.step_id)
        # The store may hold the start and the end of a step as two rows: the finished one is drawn.
        if known is None or (known.open and not step.open):
            by_id[step.step_id] = step
    ordered = sorted(by_id.values(), key=lambda step: (step.start_us, step.step_id))
    children: dict[str, list[StepRow]] = {}
    tree = _Tree()
    tops: list[StepRow] = []
    for step in ordered:
        if not step.parent_step_id:
            tops.append(step)
            if len(tops) > 1:
                tree.notes[step.step_id] = "another root"
        elif step.parent_step_id in by_id:
            children.setdefault(step.parent_step_id, []).append(step)
    for step in ordered:
        if step.parent_step_id and step.parent_step_id not in by_id:
            tops.append(step)
            tree.notes[step.step_id] = f"parent {step.parent_step_id[:8]} never seen"
    seen: set[str] = set()
    for top in tops:
        _walk(top, children, tree, seen)
    for step in ordered:
        if step.step_id not in seen:
            tree.notes[step.step_id] = "in a circle of parents"
            _walk(step, children, tree, seen)
    return tree


def _walk(top: StepRow, children: dict[str, list[StepRow]], tree: _Tree, seen: set[str]) -> None:
    """Add ``top`` and its descendants in order; deeper ones than ``MAX_DEPTH`` are moved up."""
    tree.roots.append(top)
    # A stack instead of recursion: agents produce chains deeper than Python's recursion limit.
    stack: list[tuple[StepRow, tuple[str, ...]]] = [(top, ())]
    while stack:
        step, above = stack.pop()
        if step.step_id in seen:
            continue
        seen.add(step.step_id)
        tree.order.append(step)
        if above:
            tree.parent[step.step_id] = above[-1]
            tree.children.setdefault(above[-1], []).append(step)
        below = (*above, step.step_id) if len(above) < MAX_DEPTH else above
        stack.extend((child, below) for child in reversed(children.get(step.step_id, ())))


def _select(tree: _Tree, limit: int, keep: frozenset[str]) -> set[str]:
    chosen: set[str] = set()
    # A quarter each, so that a run with thousands of failed steps still shows its expensive ones.
    share = max(1, limit // 4)

    def take(steps: Iterable[StepRow], at_most: int) -> None:
        end = min(limit, len(chosen) + at_most)
        for step in steps:
            if len(chosen) >= end:
                return
            node = step.step_id
            while node and node not in chosen:
                chosen.add(node)
                node = tree.parent.get(node, "")

    take(tree.roots[:1], 1)
    take((step for step in tree.order if step.step_id in keep), share)
    take((step for step in tree.order if step.failed or step.open), share)
    take(sorted(tree.order, key=lambda step: -(step.cost_nanos or 0)), share // 2)
    take(
        sorted(tree.order, key=lambda step: step.start_us - (step.end_us or step.start_us)),
        share // 2,
    )
    take(tree.order, limit)
    return chosen


def _lines(tree: _Tree, shown: set[str]) -> Iterator[Line]:
    weight = _subtree_sums(tree, shown)
    stack: list[tuple[StepRow | Hidden, tuple[bool, ...]]] = []
    stack.extend((entry, ()) for entry in reversed(_entries(tree.roots, shown, weight)))
    while stack:
        entry, more = stack.pop()
        if isinstance(entry, Hidden):
            yield Line(None, more, hidden=entry)
            continue
        yield Line(entry, more, tree.notes.get(entry.step_id, ""))
        below = _entries(tree.children.get(entry.step_id, []), shown, weight)
        stack.extend((child, (*more, i > 0)) for i, child in enumerate(reversed(below)))


def _entries(
    siblings: list[StepRow], shown: set[str], weight: dict[str, Hidden]
) -> list[StepRow | Hidden]:
    """The siblings that are drawn, with what lies hidden between them summed up."""
    entries: list[StepRow | Hidden] = []
    hidden: list[Hidden] = []
    for step in siblings:
        if step.step_id not in shown:
            hidden.append(weight[step.step_id])
            continue
        if hidden:
            entries.append(_sum(hidden))
            hidden = []
        entries.append(step)
    return [*entries, _sum(hidden)] if hidden else entries


def _subtree_sums(tree: _Tree, shown: set[str]) -> dict[str, Hidden]:
    """For each hidden step: itself and its descendants, which are hidden as well."""
    top: dict[str, str] = {}
    groups: dict[str, list[StepRow]] = {}
    for step in tree.order:  # a parent comes before its children
        if step.step_id in shown:
            continue
        above = tree.parent.get(step.step_id, "")
        top[step.step_id] = top.get(above, step.step_id)
        groups.setdefault(top[step.step_id], []).append(step)
    return {
        step_id: Hidden(
            len(steps),
            tuple(Counter(step.name for step in steps).items()),
            sum(step.cost_nanos or 0 for step in steps),
        )
        for step_id, steps in groups.items()
    }


def _sum(parts: list[Hidden]) -> Hidden:
    names: Counter[str] = Counter()
    for part in parts:
        names.update(dict(part.names))
    # most frequent first, the three that a line has room for
    return Hidden(
        sum(part.steps for part in parts),
        tuple(names.most_common(3)),
        sum(part.cost_nanos for part in parts),
    )
