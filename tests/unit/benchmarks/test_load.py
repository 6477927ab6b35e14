"""The load of the benchmarks: realistic, seeded, accepted, and of the size it states."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from statistics import fmean

import msgspec
import pytest

from benchmarks.load import Load, LoadSpec, make_load
from benchmarks.logic import Log, make_stage, play
from benchmarks.workload import AZURE, MOONCAKE, data_folder, fitted, recorded
from stepstream.schemas.accept import Accepted, accept
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.step import RECORD_HEADERS, Step

START_US = 1_790_000_000_000_000
SPEC = LoadSpec(runs=60, open_runs=20, events_per_s=2_000, start_us=START_US)


@pytest.fixture(scope="module")
def load() -> Load:
    return make_load(SPEC)


def steps(load: Load) -> list[Step]:
    decode = msgspec.json.Decoder(Step).decode
    return [decode(value) for value in load.values]


def test_the_same_seed_gives_the_same_bytes(load: Load) -> None:
    """Two runs of a benchmark measure the same records; another seed gives others."""
    assert make_load(SPEC).values == load.values
    assert (
        make_load(
            LoadSpec(runs=60, open_runs=20, events_per_s=2_000, start_us=START_US, seed=2)
        ).values
        != load.values
    )


def test_every_event_is_accepted_as_it_is(load: Load) -> None:
    """Nothing is clamped or rejected: what is measured is the usual path."""
    for key, value in zip(load.keys, load.values, strict=True):
        at = partition_for(key, 4)
        verdict = accept(
            value,
            key=key,
            partition=at,
            partitions=4,
            timestamp_us=START_US,
            headers=RECORD_HEADERS,
        )
        assert isinstance(verdict, Accepted)
        # A clamped field takes a slower way through `accept`, which no benchmark means to measure.
        assert verdict.clamped == ()


def test_events_weigh_about_900_bytes(load: Load) -> None:
    """The size that the goals are set for."""
    assert 800 <= fmean(map(len, load.values)) <= 1_050


def test_every_step_starts_once_and_then_ends_once(load: Load) -> None:
    """The SDK writes two events a step, the start first, and a run's root is its first and its last
    event.
    """
    runs: dict[str, list[Step]] = defaultdict(list)
    for step in steps(load):
        runs[step.trace_id].append(step)
    assert len(runs) == load.truth.runs == 60
    for events in runs.values():
        phases: dict[str, list[str]] = defaultdict(list)
        for event in events:
            phases[event.step_id].append(event.phase)
        assert all(found == ["start", "end"] for found in phases.values())
        assert 10 <= len(phases) <= 60
        assert not events[0].parent_step_id
        assert events[-1].step_id == events[0].step_id
        assert all(event.parent_step_id in phases for event in events[1:-1])


def test_the_truth_is_what_the_worker_finds(load: Load) -> None:
    """Events, steps, runs and nano-dollars: the worker's logic arrives at the same sums."""
    stage = make_stage()
    # The load states its own sums; a benchmark that compared only these would prove nothing.
    play(stage, Log(load, START_US, rate=1_000_000))
    runs = [tracked.run for tracked in stage.runs.values()]
    assert stage.counters.accepted == load.truth.events
    assert stage.counters.runs_opened == load.truth.runs
    assert sum(run.totals.steps for run in runs) == load.truth.steps
    assert sum(run.totals.cost_nanos for run in runs) == load.truth.cost_nanos


def test_so_many_runs_are_open_at_once() -> None:
    """After the rush at the beginning about ``open_runs`` runs are open until no more begin."""
    load = make_load(LoadSpec(runs=600, open_runs=100, start_us=START_US))
    last = {key: index for index, key in enumerate(load.keys)}
    begun: set[bytes] = set()
    open_now = []
    for index, key in enumerate(load.keys):
        begun.add(key)
        open_now.append(sum(last[k] >= index for k in begun) if index % 500 == 0 else 0)
    middle = [count for count in open_now[len(open_now) // 5 : len(open_now) // 2] if count]
    assert 60 <= fmean(middle) <= 160


def test_a_load_under_way_begins_with_all_runs_open() -> None:
    """The roots come first, then runs open and close evenly.

    The load is cut off at the number of events.
    """
    load = make_load(LoadSpec(events=3_000, open_runs=400, start_us=START_US, under_way=True))
    assert load.truth.events == 3_000
    assert len(set(load.keys[:400])) == 400
    assert load.truth.open > 200
    assert load.truth.runs - load.truth.open > 20


def test_times_follow_the_rate() -> None:
    """Events are spaced by their rate, and none precedes the start."""
    load = make_load(LoadSpec(runs=400, open_runs=100, events_per_s=4_000, start_us=START_US))
    times = [step.end_time or step.start_time for step in steps(load)]
    assert min(times) >= START_US
    middle = times[len(times) // 4], times[len(times) // 2]
    rate = (len(times) // 4) / ((middle[1] - middle[0]) / 1e6)
    assert 2_500 <= rate <= 6_500


def test_kinds_of_agents_steps_are_there(load: Load) -> None:
    """Plans, model calls, tools, retrievals, outputs, errors and retries: input for detectors."""
    events = steps(load)
    kinds = Counter(step.kind for step in events)
    assert set(kinds) == {"agent", "plan", "llm_call", "tool_call", "retrieval", "output"}
    assert any(step.status == "error" for step in events)
    assert any(step.retry_of for step in events)


def test_recorded_sizes_are_like_the_fitted_ones() -> None:
    """The distributions used where the traces are missing were fitted to them."""
    folder = data_folder()
    if not (folder / AZURE).exists() or not (folder / MOONCAKE).exists():
        pytest.skip(
            f"no real data at {folder}: set STEPSTREAM_DATA to the folder of {AZURE} and {MOONCAKE}"
        )
    real, made = recorded(folder), fitted()
    rng = random.Random(1)

    def medians(draw: list[int]) -> float:
        return float(sorted(draw)[len(draw) // 2])

    for index in (0, 1):
        ours = medians([made.tokens(rng)[index] for _ in range(20_000)])
        theirs = medians([real.tokens(rng)[index] for _ in range(20_000)])
        assert 0.6 <= ours / theirs <= 1.6
    assert 0.8 <= fmean(real.gap(rng) for _ in range(20_000)) <= 1.2
    assert 0.8 <= fmean(made.gap(rng) for _ in range(20_000)) <= 1.2
