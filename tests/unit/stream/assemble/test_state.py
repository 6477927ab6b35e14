"""The state record: a run after a restart, and records that another worker wrote."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.common.commit_metadata import WORKER
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.times import SECOND_US
from stepstream.schemas.trajectory import TrajectoryStruct
from stepstream.stream.assemble.run_records import trajectory, usage_records
from stepstream.stream.assemble.state import (
    STATE_VERSION,
    RunState,
    UnknownStateVersion,
    decode_state,
    encode,
    encode_state,
    restore_run,
)
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import Fired, Run
from stepstream.stream.shell.state_index import REFRESH_OFFSETS, StateIndex
from tests.support.stream_world import START_US, event, make_log

PRICES = PriceBook()
BOOK = RuleBook((), make_detector)


def merge(run: Run, item: dict[str, Any], append_us: int = START_US) -> None:
    verdict = accept_value(msgspec.json.encode(item), timestamp_us=START_US)
    assert isinstance(verdict, Accepted)
    run.merge(verdict.step, PRICES.cost(verdict.step, verdict.cost_nanos), append_us, 20_000)


def as_seen(run: Run) -> tuple[Any, Any]:
    """All that the world sees of a run."""
    shown = msgspec.json.decode(msgspec.json.encode(trajectory(run)), type=TrajectoryStruct)
    return shown, sorted(usage_records(run, everything=True), key=msgspec.json.encode)


@pytest.mark.parametrize("seed", range(5))
def test_a_run_is_the_same_after_a_restart_at_any_record(seed: int) -> None:
    """Encoding and restoring between any two records changes nothing that is published."""
    log, _ = make_log(seed, runs=3, concurrent=3)
    through = {}
    calm: dict[str, Run] = {}
    shaken: dict[str, Run] = {}
    for record in log:
        item = msgspec.json.decode(record.value or b"")
        trace_id, append_us = item["trace_id"], record.timestamp * 1000
        for runs in (calm, shaken):
            run = runs.setdefault(
                trace_id, Run(trace_id, append_us, BOOK.rules_for("default", "", "tester", "", ""))
            )
            merge(run, item, append_us)
        through[trace_id] = record.offset
        shaken[trace_id] = restore_run(
            decode_state(encode_state(shaken[trace_id], record.offset)), BOOK
        )
        assert as_seen(shaken[trace_id]) == as_seen(calm[trace_id])
        assert shaken[trace_id].open.keys() == calm[trace_id].open.keys()


def test_everything_that_is_no_sum_of_steps_survives() -> None:
    """Counts, findings, detectors' notes and times; open steps, totals and root are derived."""
    policy = Policy.model_validate({"name": "p", "rules": [{"rule": "run_steps", "limit": 3}]})
    book = RuleBook((policy,), make_detector)
    run = Run("a" * 32, START_US, book.rules_for("default", "", "tester", "", ""))
    merge(run, event("a" * 32, "1" * 16, "", "start", START_US))
    merge(run, event("a" * 32, "2" * 16, "1" * 16, "start", START_US + 5), START_US + 9)
    merge(
        run,
        event("a" * 32, "3" * 16, "1" * 16, "end", START_US + 5, cost_usd="0.5", status="error"),
        START_US + 9,
    )
    run.closed, run.closed_at_us, run.live, run.started_late = True, START_US + 77, False, True
    # Numbers that no other field has, so that a mix-up shows.
    run.duplicates, run.over_limit, run.late_steps = 3, 4, 5
    run.fired["x||limit"] = Fired("x", "", "limit", "run_cost", "p", resolved=True)
    run.detector_state["loop"] = {"key": ["1" * 16]}
    state = decode_state(encode_state(run, 42))
    again = restore_run(state, book)
    assert (state.through, state.order) == (42, (3, 1, 42))
    assert as_seen(again) == as_seen(run)
    assert again.fired == run.fired
    assert again.detector_state == run.detector_state
    assert again.root is not None
    assert (again.root.step_id, set(again.open)) == ("1" * 16, {"1" * 16, "2" * 16})
    assert (again.live, again.started_late, again.closed_at_us) == (False, True, START_US + 77)
    assert (again.duplicates, again.over_limit, again.late_steps) == (3, 4, 5)
    assert (again.first_append_us, again.last_append_us, again.rank) == (
        START_US,
        START_US + 9,
        run.rank,
    )
    assert (again.rules.applied, again.cost_nanos, again.errors) == (
        run.rules.applied,
        500_000_000,
        1,
    )


def test_a_record_is_the_same_bytes_when_encoded_again() -> None:
    """What a closed run keeps in memory is what it would write."""
    log, _ = make_log(1, runs=1)
    run = Run("a" * 32, START_US, BOOK.rules_for("default", "", "tester", "", ""))
    for record in log:
        merge(run, msgspec.json.decode(record.value or b""))
    record_bytes = encode_state(run, 9)
    assert encode(decode_state(record_bytes)) == record_bytes


def test_the_error_on_a_record_of_another_version_names_the_remedy() -> None:
    """A worker that meets a newer one's state must stop, not guess."""
    with pytest.raises(
        UnknownStateVersion, match=f"state version {STATE_VERSION + 1}.*reads .* to {STATE_VERSION}"
    ):
        decode_state(bytes([STATE_VERSION + 1]) + b"whatever")


@pytest.mark.parametrize(
    "record",
    [b"", bytes([STATE_VERSION]), bytes([STATE_VERSION]) + b"\x00", bytes([STATE_VERSION, 255])],
)
def test_what_is_no_state_record_is_refused(record: bytes) -> None:
    """Garbage on the state topic is an error, never an empty run."""
    with pytest.raises(ValueError, match=r".+"):
        decode_state(record)


def test_a_record_with_fewer_fields_is_read() -> None:
    """Fields are only added at the end, with defaults: records of older workers lack them."""
    run = Run("a" * 32, START_US, BOOK.rules_for("default", "", "tester", "", ""))
    merge(run, event("a" * 32, "1" * 16, "", "start", START_US))
    # The first byte is the version; the rest is an array without names.
    fields = msgspec.msgpack.decode(encode_state(run, 1)[1:])
    steps = RunState.__struct_fields__.index("steps")
    # As if a step ended after its first eight fields.
    fields[steps:] = [[step[:8] for step in fields[steps]]]
    state = decode_state(bytes([STATE_VERSION]) + msgspec.msgpack.encode(fields))
    assert (state.steps[0].step_id, state.steps[0].status, state.steps[0].output_hash) == (
        "1" * 16,
        "running",
        0,
    )


def test_the_newer_of_two_states_is_known_in_any_order_of_writing() -> None:
    """A zombie's record may come last and know less."""
    run = Run("a" * 32, START_US, BOOK.rules_for("default", "", "tester", "", ""))
    merge(run, event("a" * 32, "1" * 16, "", "start", START_US))
    early = decode_state(encode_state(run, 1))
    merge(run, event("a" * 32, "1" * 16, "", "end", START_US, START_US + 1))
    late = decode_state(encode_state(run, 2))
    run.closed = True
    closed = decode_state(encode_state(run, 2))
    closed_again = decode_state(encode_state(run, 7))
    states = [early, late, closed, closed_again]
    assert sorted(states, key=lambda state: state.order) == states


@given(st.integers(0, 2**62))
def test_commit_metadata_survives(state_from: int) -> None:
    """The metadata is where the state topic must be read from."""
    assert (WORKER.decode(WORKER.encode(state_from)) or 0) == state_from
    # Clients read on behind its end.
    assert (WORKER.decode(WORKER.encode(state_from) + "17;x") or 0) == state_from


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "1;state=5",
        "2;state=5",
        "2;else=5;",
        "2;state=;",
        "2;state=-5;",
        "2;state=x;",
        "\x00",
        "2",
    ],
)
def test_metadata_that_is_not_known_means_read_all(metadata: str | None) -> None:
    """Too much is read rather than too little."""
    assert (WORKER.decode(metadata) or 0) == 0


class TestStateIndex:
    """The lowest offset on the state topic that a restart needs."""

    def test_open_runs_hold_it(self) -> None:
        """However old, the newest record of an open run is needed."""
        index = StateIndex(60 * SECOND_US)
        index.written("a", 10, closed=False, closed_at_us=0)
        index.written("b", 20, closed=False, closed_at_us=0)
        index.written("a", 30, closed=False, closed_at_us=0)
        assert (WORKER.decode(index.metadata(1)) or 0) == 20

    def test_closed_runs_hold_it_for_the_horizon(self) -> None:
        """After it they are not needed, whatever is read."""
        index = StateIndex(60 * SECOND_US)
        for second in range(200):
            index.written(f"run {second}", second, closed=True, closed_at_us=second * SECOND_US)
        lowest = WORKER.decode(index.metadata(1)) or 0
        assert 199 - 62 <= lowest <= 199 - 60

    def test_it_never_goes_back_and_is_not_computed_for_each_offset(self) -> None:
        """A commit must not need more than the one before; the sums are done once in a while."""
        index = StateIndex(SECOND_US, start=500)
        index.written("a", 400, closed=False, closed_at_us=0)
        assert (WORKER.decode(index.metadata(1)) or 0) == 500
        index.written("a", 900, closed=False, closed_at_us=0)
        # The sum over all runs is not made for every commit: 500 is still right, because it is
        # lower.
        assert (WORKER.decode(index.metadata(2)) or 0) == 500
        assert (WORKER.decode(index.metadata(1 + REFRESH_OFFSETS)) or 0) == 900

    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), max_size=80))
    def test_nothing_that_is_needed_lies_below_it(
        self, writes: list[tuple[int, bool, int]]
    ) -> None:
        """Every open run's newest record, and every closed run's within the horizon."""
        horizon_us = 5 * SECOND_US
        index = StateIndex(horizon_us)
        newest: dict[str, tuple[int, bool, int]] = {}
        now_us = latest_us = 0
        for offset, (number, closes, seconds) in enumerate(writes):
            now_us += seconds * SECOND_US
            trace_id = f"run {number}"
            closed = closes or newest.get(trace_id, (0, False, 0))[1]  # a closed run stays closed
            latest_us = now_us if closed else latest_us
            index.written(trace_id, offset, closed=closed, closed_at_us=now_us if closed else 0)
            newest[trace_id] = (offset, closed, now_us)
            lowest = WORKER.decode(index.metadata((offset + 1) * REFRESH_OFFSETS)) or 0
            needed = [
                at
                for at, is_closed, when in newest.values()
                if not is_closed or when >= latest_us - horizon_us
            ]
            assert lowest <= min(needed)
