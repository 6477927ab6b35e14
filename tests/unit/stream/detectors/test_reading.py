"""Budgets of detectors that read contents: counted in the run's state, so that a replay agrees."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepstream.stream.detectors import reading
from stepstream.stream.detectors.content import not_retried, repetition
from stepstream.stream.detectors.reading import may_compare, within_budget
from tests.support.stream_bench import Bench
from tests.support.stream_world import START_US, event

TRACE, ROOT = "a" * 32, "1" * 16


class _Reader:
    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def wants_content(self, kind: str) -> bool:
        return kind in self.kinds


CALLS, ANSWERS = _Reader("tool_call"), _Reader("llm_call")


def test_a_detector_stops_after_its_characters_and_others_go_on() -> None:
    state: dict[str, Any] = {}
    readers = (CALLS, ANSWERS)
    quarter = reading.MAX_READ // 4
    assert within_budget(state, readers, "tool_call", quarter) is readers  # counts for both
    assert within_budget(state, readers, "tool_call", 1) is readers
    assert within_budget(state, readers, "tool_call", 3 * quarter - 1) is readers
    assert list(within_budget(state, readers, "tool_call", 1)) == [ANSWERS]
    assert list(within_budget(state, readers, "llm_call", 2 * quarter)) == [ANSWERS]
    assert list(within_budget(state, readers, "llm_call", 2 * quarter)) == []


def test_the_counts_are_plain_data_and_continue_after_a_restart() -> None:
    left: dict[str, Any] = {}
    stopped: dict[str, Any] = {}
    steps = [("tool_call", 900_000), ("llm_call", 700_000)] * 6
    for number, (kind, characters) in enumerate(steps):
        if number == 5:
            stopped = msgspec.msgpack.decode(msgspec.msgpack.encode(stopped))
        at_once = within_budget(left, (CALLS, ANSWERS), kind, characters)
        assert list(within_budget(stopped, (CALLS, ANSWERS), kind, characters)) == list(at_once)
    assert left == stopped


def test_comparisons_are_counted_up_to_a_limit() -> None:
    own: dict[str, Any] = {}
    assert may_compare(own, reading.MAX_COMPARED)
    assert not may_compare(own, 1)
    assert may_compare(own, 0)


def _calls(bench: Bench, number: int) -> None:
    bench.process(event(TRACE, ROOT, "", "start", START_US), 0.0)
    for n in range(number):
        step = f"{n + 2:016x}"
        made = event(TRACE, step, ROOT, "end", START_US + n, tool="search", kind="tool_call")
        bench.process(made | {"input": "the same words for each of the calls", "output": "x"}, 0.0)


def test_a_run_whose_characters_are_used_up_is_read_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "MAX_READ", 200)
    monkeypatch.setattr(reading, "_COUNTED_TOGETHER", 50)
    bench = Bench()
    _calls(bench, 12)
    # 37 characters a step: five steps are read, seven are not, each by three detectors.
    assert bench.logic.counters.contents_unread == 21


@pytest.mark.parametrize("detector", [repetition, not_retried])
def test_a_detector_without_comparisons_left_finds_nothing(
    detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "may_compare", lambda own, number: False)
    bench = Bench()
    _calls(bench, 12)
    assert bench.logic.counters.contents_unread == 0
    assert not [fired for fired in bench.run.fired.values() if fired.rule == "repetition"]
