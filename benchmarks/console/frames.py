"""The work of a page's main thread in each frame, from a trace of the browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

_CATEGORIES: Final = [
    "devtools.timeline",
    "disabled-by-default-devtools.timeline",
    "disabled-by-default-devtools.timeline.frame",
    "devtools.timeline.frame",
]
# A frame of the main thread begins with the first of these and its work is in the second.
_FRAME: Final = "BeginMainThreadFrame"
_TASK: Final = "RunTask"


def work_of_frames(browser: Any, page: Any, work: Callable[[], object]) -> list[float]:
    """Milliseconds of the main thread (script, style, layout, paint) in each frame of ``work``."""
    browser.start_tracing(page=page, categories=_CATEGORIES)
    work()
    return frames_of(json.loads(browser.stop_tracing())["traceEvents"])


def frames_of(events: list[dict[str, Any]]) -> list[float]:
    """As ``work_of_frames``, of the events of a trace; of the page that draws most."""
    main = {
        (one["pid"], one["tid"])
        for one in events
        if one.get("name") == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    tasks: dict[Any, list[tuple[float, float]]] = {key: [] for key in main}
    starts: dict[Any, list[float]] = {key: [] for key in main}
    for one in events:
        key = (one["pid"], one["tid"])
        if key not in main:
            continue
        if one["name"] == _TASK and one["ph"] == "X":
            tasks[key].append((one["ts"], one.get("dur", 0)))
        elif one["name"] == _FRAME:
            starts[key].append(one["ts"])
    if not any(starts.values()):
        return []
    drawing = max(starts, key=lambda key: len(starts[key]))
    return _spent(sorted(starts[drawing]), sorted(tasks[drawing]))


def _spent(begins: list[float], tasks: list[tuple[float, float]]) -> list[float]:
    """Milliseconds of the tasks in each frame; a task belongs to the frame of its middle."""
    spent = [0.0] * len(begins)
    frame = 0
    for start, duration in tasks:
        while frame + 1 < len(begins) and begins[frame + 1] <= start + duration / 2:
            frame += 1
        if start + duration >= begins[0]:
            spent[frame] += duration / 1_000
    return spent
