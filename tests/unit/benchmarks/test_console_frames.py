"""The work of each frame in a trace of the browser."""

from __future__ import annotations

from typing import Any

from benchmarks.console.frames import frames_of


def thread(tid: int, name: str) -> dict[str, Any]:
    return {"pid": 1, "tid": tid, "ph": "M", "name": "thread_name", "args": {"name": name}}


def frame(tid: int, ts: float) -> dict[str, Any]:
    return {"pid": 1, "tid": tid, "ph": "I", "name": "BeginMainThreadFrame", "ts": ts}


def task(tid: int, ts: float, dur: float) -> dict[str, Any]:
    return {"pid": 1, "tid": tid, "ph": "X", "name": "RunTask", "ts": ts, "dur": dur}


def test_the_tasks_between_two_frames_are_added_up() -> None:
    events = [
        thread(1, "CrRendererMain"),
        thread(2, "Compositor"),
        thread(3, "CrRendererMain"),
        frame(3, 5),  # another page, which draws less
        *(frame(1, ts) for ts in (1_000, 17_000, 33_000)),
        task(1, 0, 500),  # before the first frame
        task(1, 1_000, 3_000),
        task(1, 5_000, 1_000),
        task(1, 17_000, 2_000),
        task(2, 17_000, 9_000),
        task(1, 40_000, 7_000),
    ]
    assert frames_of(events) == [4.0, 2.0, 7.0]


def test_a_trace_without_frames_has_none() -> None:
    assert frames_of([thread(1, "CrRendererMain"), task(1, 0, 5)]) == []
