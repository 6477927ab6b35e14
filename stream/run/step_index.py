"""A run's steps in the order of their start, and the fields of its trajectory that summarize them.

A growing run is published again and again, and most of its steps have not changed since the last
time. Steps are settled, in order, as they end: a settled step is encoded and counted once. The
first step, usually the root, is open for as long as the run and is counted each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import attrgetter
from typing import Final

import msgspec

from stepstream.schemas.trajectory import MAX_PATH_BYTES, PathStepStruct
from stepstream.stream.run.steps import StepInfo

MAX_NAMES: Final = 64
_PATH_STEP_OVERHEAD_BYTES: Final = 90
_encode = msgspec.json.Encoder().encode
_order = attrgetter("start_us", "step_id")

Steps = Mapping[str, StepInfo]


class Tally:
    """The summary of some steps, added in the order of their start."""

    __slots__ = (
        "cancelled",
        "end_us",
        "models",
        "orphans",
        "path",
        "retrievals",
        "room_bytes",
        "roots",
        "start_us",
        "tools",
    )

    def __init__(self, room_bytes: int = MAX_PATH_BYTES) -> None:
        self.path = bytearray()
        """Steps as JSON, each followed by a comma."""
        self.room_bytes = room_bytes
        """Bytes by which the path may still grow; below 0 nothing is added to it any more."""
        self.tools: list[str] = []
        self.models: list[str] = []
        self.start_us = self.end_us = self.roots = self.orphans = self.cancelled = (
            self.retrievals
        ) = 0

    @property
    def truncated(self) -> bool:
        """Whether the path leaves out a step."""
        return self.room_bytes < 0

    def add(self, info: StepInfo, known: Steps) -> None:
        """Add a step; ``known`` are all steps of the run."""
        if info.tool:
            _add_name(self.tools, info.tool)
        if info.model:
            _add_name(self.models, info.model)
        self.end_us = max(self.end_us, info.end_us or info.start_us)
        if not info.parent:
            self.roots += 1
        elif info.parent not in known:
            self.orphans += 1
        if info.status == "cancelled":
            self.cancelled += 1
        if info.ended and info.kind == "retrieval":
            self.retrievals += 1
        if self.room_bytes >= 0:
            self.room_bytes -= (
                _PATH_STEP_OVERHEAD_BYTES
                + len(info.step_id)
                + len(info.parent)
                + 2 * len(info.name)
            )
            if self.room_bytes >= 0:
                self.path += _path_step(info)

    def join(self, later: Tally) -> None:
        """Add the tally of the steps that follow, made with the room that this one has left."""
        for tool in later.tools:
            _add_name(self.tools, tool)
        for model in later.models:
            _add_name(self.models, model)
        self.end_us = max(self.end_us, later.end_us)
        self.roots += later.roots
        self.orphans += later.orphans
        self.cancelled += later.cancelled
        self.retrievals += later.retrievals
        self.path += later.path
        self.room_bytes = later.room_bytes


def _add_name(names: list[str], name: str) -> None:
    if name not in names and len(names) < MAX_NAMES:
        names.append(name)


def _path_step(info: StepInfo) -> bytes:
    shown = PathStepStruct(
        step_id=info.step_id,
        parent_step_id=info.parent,
        kind=info.kind,
        name=info.name,
        status=info.status,
    )
    return _encode(shown) + b","


class StepIndex:
    """The order of a run's steps and the tally of the settled ones. The run drops it when a step's
    start changes.
    """

    __slots__ = ("_order", "_room_bytes", "_settled", "_settled_count")

    def __init__(self) -> None:
        self._order: list[str] = []
        self._forget(MAX_PATH_BYTES)

    def _forget(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._settled = Tally(room_bytes)
        self._settled_count = 0

    def in_order(self, known: Steps) -> list[StepInfo]:
        """The run's steps, by their start."""
        self._take_in(known)
        return [known[step_id] for step_id in self._order]

    def tally(self, known: Steps) -> Tally:
        """The tally of all steps of the run."""
        self._take_in(known)
        whole = Tally()
        if not self._order:
            return whole
        first = known[self._order[0]]
        whole.start_us = first.start_us
        whole.add(first, known)
        self._settle(known, whole.room_bytes)
        whole.join(self._settled)
        for step_id in islice(self._order, 1 + self._settled_count, None):
            whole.add(known[step_id], known)
        return whole

    def _take_in(self, known: Steps) -> None:
        """Sort in the steps that are new since the last call, the last ones in ``known``."""
        order = self._order
        if len(known) == len(order):
            return
        added = sorted(islice(known.values(), len(order), None), key=_order)
        # Steps usually come in the order of their start; otherwise all of them are sorted anew.
        if order and _order(added[0]) < _order(known[order[-1]]):
            added = sorted(known.values(), key=_order)
            order.clear()
            self._forget(MAX_PATH_BYTES)
        order.extend(info.step_id for info in added)

    def _settle(self, known: Steps, room_bytes: int) -> None:
        """Settle the ended steps up to the first one that may still change, in the room that the
        first step leaves.
        """
        # The first step has grown, by its end: the settled path may not fit any more.
        if room_bytes != self._room_bytes:
            self._forget(room_bytes)
        for step_id in islice(self._order, 1 + self._settled_count, None):
            info = known[step_id]
            if not info.ended or (info.parent and info.parent not in known):
                return
            self._settled.add(info, known)
            self._settled_count += 1
