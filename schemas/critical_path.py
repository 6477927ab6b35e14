"""The chain of steps that determines how long a run takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """A step in time; ``end_us`` is the time of the last event while it is open."""

    step_id: str
    parent_step_id: str
    start_us: int
    end_us: int


class OnPath(NamedTuple):
    """A step of the path, and how long none of its own steps was what the run waited for."""

    step_id: str
    own_us: int


def critical_path(spans: Iterable[Span]) -> list[OnPath]:
    """The steps of the path in order of their starts; ``own_us`` adds up to the root's time.

    From the end of a step backwards: what it waited for is the step below it that ended last before
    that moment, then again from the start of that step. Steps outside the time of their parent
    (clocks differ) count with the part within it. A step whose parent is missing, or in a circle
    of parents, is on no path; of several roots the longest is taken.
    """
    known = {span.step_id: span for span in spans}
    below: dict[str, list[Span]] = {}
    for span in known.values():
        below.setdefault(span.parent_step_id, []).append(span)
    roots = [span for span in known.values() if span.parent_step_id not in known]
    if not roots:
        return []
    root = max(roots, key=lambda span: (span.end_us - span.start_us, span.step_id))
    own: dict[str, int] = {}
    # A stack instead of recursion: agents produce chains deeper than Python's recursion limit.
    waiting = [(root, root.start_us, root.end_us)]
    while waiting:
        span, start, end = waiting.pop()
        at, spent = end, 0
        for child in sorted(
            below.get(span.step_id, ()), key=lambda one: (one.end_us, one.step_id), reverse=True
        ):
            child_start, child_end = max(child.start_us, start), min(child.end_us, at)
            if child_end <= child_start or child.step_id in own:
                continue
            spent += at - child_end
            waiting.append((child, child_start, child_end))
            at = child_start
        own[span.step_id] = max(0, spent + at - start)
    return [
        OnPath(step_id, own[step_id])
        for step_id in sorted(own, key=lambda one: (known[one].start_us, -known[one].end_us, one))
    ]
