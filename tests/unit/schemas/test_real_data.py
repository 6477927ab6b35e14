"""Real agents' runs as step events: none is rejected or clamped, counts and sums are unchanged."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest

from benchmarks.cases import MissingData, data_folder, framework_traces, lifecycle
from benchmarks.cases.spans import time_us
from benchmarks.cases.trail_gaia import duration_us
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import StepEvent
from tests.support.data_cases import READERS, Run, real_data, real_runs

BOOK: Final = PriceBook()


def last_time(event: StepEvent) -> int:
    return max(event.start_time, event.end_time or 0)


def tokens(run: Run) -> int:
    return sum(step.usage.input_tokens + step.usage.output_tokens for step in run if step.usage)


@pytest.mark.parametrize("source", READERS)
def test_every_real_step_is_accepted_as_it_is(source: str) -> None:
    """Starts and ends of all real runs pass ``accept`` just after they happened, with nothing
    clamped.
    """
    outcomes: Counter[object] = Counter()
    for run in real_runs(source):
        for event in lifecycle(run):
            verdict = accept_value(
                event.model_dump_json().encode(), timestamp_us=last_time(event) + 1_000
            )
            outcomes[verdict.clamped if isinstance(verdict, Accepted) else verdict] += 1
    assert outcomes.keys() == {()}


@pytest.mark.parametrize("source", READERS)
def test_every_real_run_is_one_tree(source: str) -> None:
    """A run has one trace, one root and no parent that is not there; step ids are its own."""
    runs = real_runs(source)
    for run in runs:
        ids = {step.step_id for step in run}
        assert len(ids) == len(run)
        assert len({step.trace_id for step in run}) == 1
        assert [step.parent_step_id for step in run].count("") == 1
        assert {step.parent_step_id for step in run} - ids <= {""}
    assert len({run[0].trace_id for run in runs}) == len(runs)


@pytest.mark.parametrize("source", READERS)
def test_a_life_has_a_start_before_each_end(source: str) -> None:
    """The live form of a run has each step twice, by time; a start has no outcome."""
    for run in real_runs(source)[:20]:
        events = lifecycle(run)
        assert Counter(event.phase for event in events) == {"start": len(run), "end": len(run)}
        moments = [
            event.start_time if event.phase == "start" else event.end_time for event in events
        ]
        assert moments == sorted(moments, key=lambda moment: moment or 0)
        assert not [
            e
            for e in events
            if e.phase == "start" and (e.output or e.usage or e.end_time or e.status != "ok")
        ]


def test_question_answering_agents_in_numbers() -> None:
    """TRAIL: runs, calls and failures of its spans.

    Tokens of model calls only, some 10 x the median.
    """
    runs = real_runs("trail_gaia")
    steps = [step for run in runs for step in run]
    assert (len(runs), len(steps)) == (62, 1_622)
    assert Counter(step.kind for step in steps)["llm_call"] == 677
    assert Counter(step.kind for step in steps)["tool_call"] == 259
    assert Counter(step.status for step in steps)["error"] == 177
    assert not [step for step in steps if step.status == "error" and not step.error_message]
    used = [tokens(run) for run in runs]
    # What spike rules have to find in these runs.
    assert sum(total >= 10 * median(used) for total in used) == 6


def test_question_answering_agents_in_dollars() -> None:
    """TRAIL: every model call with a model is priced; the costliest run is 8.2 times the median."""
    costs = []
    for run in real_runs("trail_gaia"):
        calls = [step for step in run if step.usage]
        priced = [
            BOOK.price(step.provider, step.model, step.usage, step.start_time)
            for step in calls
            if step.usage
        ]
        assert {cost.source for cost in priced} == {"priced"}
        costs.append(sum(cost.nanos or 0 for cost in priced))
    assert max(costs) / median(costs) == pytest.approx(8.2, abs=0.05)


def test_the_airline_agent_in_numbers() -> None:
    """tau-bench: one step a model call and a tool call, and 73 tool errors that look like
    ordinary answers.
    """
    runs = real_runs("tau_bench")
    steps = [step for run in runs for step in run]
    assert Counter(step.kind for step in steps) == {
        "agent": 200,
        "llm_call": 2_454,
        "tool_call": 1_164,
    }
    hidden = [
        step for step in steps if step.kind == "tool_call" and step.output.startswith("Error")
    ]
    # The failures that `hidden_tool_error` is measured with.
    assert len(hidden) == 73
    assert {step.status for step in steps} == {"ok"}
    for run in runs:
        root, *children = run
        assert {step.parent_step_id for step in children} == {root.step_id}
        assert all(
            a.end_time is not None and a.end_time <= b.start_time for a, b in pairwise(children)
        )
        assert root.end_time is not None
        assert children[-1].end_time is not None
        assert children[-1].end_time <= root.end_time


def test_frameworks_tokens_are_counted_once() -> None:
    """Each framework's tokens are those of its innermost model calls, as the exporter counted
    them.
    """
    real_data("otel_framework_traces")
    files = framework_traces.files()
    assert len(files) == 8
    for path in files:
        exported: list[dict[str, Any]] = json.loads(path.read_text())["observations"]
        calls = [o for o in exported if o["type"] == "GENERATION"]
        around = {o["parentObservationId"] for o in calls}
        inner = [o["usageDetails"] for o in calls if o["id"] not in around]
        steps = framework_traces.steps_of(path)
        assert len(steps) == len(exported)
        assert sum(s.usage.input_tokens for s in steps if s.usage) == sum(
            usage.get("input", 0) for usage in inner
        )
        assert sum(s.usage.output_tokens for s in steps if s.usage) == sum(
            usage.get("output", 0) for usage in inner
        )


def test_frameworks_costs_are_ours() -> None:
    """Where a framework computed a cost itself, our price of the same tokens on that day is
    the same.
    """
    given = [
        step
        for run in real_runs("otel_framework_traces")
        for step in run
        if step.cost_usd is not None
    ]
    assert len(given) == 4
    for step in given:
        assert step.usage is not None
        assert step.cost_usd is not None
        ours = BOOK.price(step.provider, step.model, step.usage, step.start_time)
        assert ours.nanos == nanos_from_usd(step.cost_usd)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("PT1M48.75533S", 108_755_330),
        ("PT0.000047S", 47),
        ("PT2H", 7_200_000_000),
        ("PT1H0M1S", 3_601_000_000),
        ("PT0S", 0),
    ],
)
def test_durations_of_spans_are_exact(text: str, us: int) -> None:
    """ISO 8601 durations lose no microsecond."""
    assert duration_us(text) == us


def test_times_of_spans_are_exact() -> None:
    """ISO 8601 times lose no microsecond, and are UTC where they name no zone."""
    assert time_us("2025-03-19T16:32:08.062589Z") == 1_742_401_928_062_589
    assert time_us("2025-03-19T16:32:08.062589") == 1_742_401_928_062_589
    assert time_us("2025-03-19T17:32:08.062589+01:00") == 1_742_401_928_062_589


def test_missing_data_is_reported_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not have the data learns which folder and which variable are meant."""
    monkeypatch.setenv("STEPSTREAM_DATA", str(tmp_path))
    with pytest.raises(MissingData, match=r"no real data at .*trail_gaia: set STEPSTREAM_DATA"):
        data_folder("trail_gaia")
