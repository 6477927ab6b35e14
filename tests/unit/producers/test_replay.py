"""Replay: what of a recording is sent, when, and how the rest is reported."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.producers.replay.recording import FreshIds
from stepstream.producers.replay.replay import ReplayError, ReplayProgress, ReplayReport, replay
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import SECOND_US
from tests.support.step_events import NOW_US, event, valid_events


def recording(path: Path, lines: Iterable[Any]) -> Path:
    """A file of events; a line that is bytes is written as it is."""
    data = b"\n".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def send(path: Path, **options: Any) -> tuple[ReplayReport, list[dict[str, Any]]]:
    transport = MemoryTransport()
    report = replay(path, Settings(), transport=transport, **{"speed": 0, **options})
    values = [json.loads(record.value) for record in transport.records]
    assert [record.key.decode() for record in transport.records] == [
        value["trace_id"] for value in values
    ]
    return report, values


def run_of(number: int, begin_us: int = NOW_US, lasts_us: int = SECOND_US) -> list[dict[str, Any]]:
    """A root and a child of it, both with start and end."""
    trace = {"trace_id": f"{number + 1:032x}"}
    root = {
        **trace,
        "step_id": "a" * 16,
        "kind": "agent",
        "name": "support",
        "start_time": begin_us,
    }
    child = {
        **trace,
        "step_id": "b" * 16,
        "parent_step_id": "a" * 16,
        "retry_of": "a" * 16,
        "start_time": begin_us,
    }
    return [
        event(**root, phase="start", end_time=...),
        event(**child, phase="start", end_time=...),
        event(**child, end_time=begin_us + lasts_us // 2, first_token_time=begin_us + 1),
        event(**root, end_time=begin_us + lasts_us),
    ]


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
def test_a_run_is_a_new_run(tmp_path: Path, name: str) -> None:
    """Ids are fresh and agree with each other; times end now and keep their distances; everything
    else is as recorded.
    """
    recorded = run_of(0)
    before = time.time_ns() // 1_000
    report, sent = send(recording(tmp_path / name, recorded))
    after = time.time_ns() // 1_000
    assert (
        report.lines,
        report.sent,
        report.delivered,
        report.failed,
        report.bad,
        report.runs,
    ) == (4, 4, 4, 0, 0, 1)
    assert len({value["trace_id"] for value in sent}) == 1
    assert sent[0]["trace_id"] != recorded[0]["trace_id"]
    assert (
        sent[0]["step_id"] == sent[3]["step_id"] == sent[1]["parent_step_id"] == sent[2]["retry_of"]
    )
    assert sent[1]["step_id"] == sent[2]["step_id"] != sent[0]["step_id"]
    # One shift for all times of the run keeps its durations.
    shift = sent[3]["end_time"] - recorded[3]["end_time"]
    assert before <= sent[3]["end_time"] <= after
    for old, new in zip(recorded, sent, strict=True):
        for field in ("start_time", "end_time", "first_token_time"):
            assert (new.get(field) or shift) - (old.get(field) or 0) == shift
        same = {"kind", "name", "phase", "schema_version"}
        assert {key: new[key] for key in same} == {key: old[key] for key in same}
        assert set(new) == set(old)
    # Two replays of a file are two runs.
    _, again = send(tmp_path / name)
    assert again[0]["trace_id"] != sent[0]["trace_id"]


def test_as_recorded(tmp_path: Path) -> None:
    """Keeping times and ids sends each line as it is, to the byte."""
    lines = [
        json.dumps(step, indent=None, separators=(", ", ": ")).encode()
        for step in run_of(0, time.time_ns() // 1_000)
    ]
    transport = MemoryTransport()
    replay(
        recording(tmp_path / "a.jsonl", lines),
        Settings(),
        speed=0,
        keep_times=True,
        keep_ids=True,
        transport=transport,
    )
    assert [record.value for record in transport.records] == lines


def test_unknown_fields_travel(tmp_path: Path) -> None:
    """Fields of a newer version survive a replay by this one."""
    _, sent = send(recording(tmp_path / "a.jsonl", [event(new_field={"a": [1]})]))
    assert sent[0]["new_field"] == {"a": [1]}


def test_bad_lines_are_reported_and_skipped(tmp_path: Path) -> None:
    """A line that is no event is reported with its place and reason; those around it are sent;
    empty lines are nothing.
    """
    path = recording(
        tmp_path / "a.jsonl",
        [
            event(),
            b"",
            b"{",
            event(step_id="call-1"),
            event(phase="end", end_time=...),
            b"\xff",
            event(),
            b"[]",
        ],
    )
    report, sent = send(path)
    assert len(sent) == 2
    assert (report.lines, report.bad) == (7, 5)
    assert [(line.place, line.reason) for line in report.bad_lines] == [
        (f"{path}:3", "malformed_json"),
        (f"{path}:4", "invalid_field"),
        (f"{path}:5", "missing_field"),
        (f"{path}:6", "malformed_json"),
        (f"{path}:8", "malformed_json"),
    ]
    assert f"{path}:4: invalid_field" in str(report)


def test_old_recordings(tmp_path: Path) -> None:
    """A recording from years ago is sent as of now; with its own times it would be rejected, and
    that is reported.
    """
    path = recording(tmp_path / "a.jsonl", run_of(0, begin_us=1_000_000_000_000_000))
    report, sent = send(path)
    assert len(sent) == 4
    # With its own times the recording is too old for every record.
    report, sent = send(path, keep_times=True)
    assert (sent, report.bad, report.bad_lines[0].reason) == ([], 4, "time_out_of_range")


@pytest.mark.parametrize("unit_us", [1_000, 1_000_000], ids=["milliseconds", "seconds"])
def test_the_line_in_another_unit_is_the_one_that_is_reported(tmp_path: Path, unit_us: int) -> None:
    """Times of one line do not shift all others: they are sent, and the wrong line is named."""
    wrong = run_of(1)[0]
    # As a producer writes that counts seconds or milliseconds.
    wrong["start_time"] //= unit_us
    path = recording(tmp_path / "a.jsonl", [wrong, *run_of(0)])
    report, sent = send(path)
    assert (len(sent), report.bad, report.bad_lines[0].reason) == (4, 1, "time_out_of_range")
    assert report.bad_lines[0].place.endswith("a.jsonl:1")


@pytest.mark.parametrize(
    ("speed", "recorded_s", "least_s"),
    [(1.0, 0.4, 0.4), (7_200.0, 3_600, 0.5), (0, 3_600, 0)],
)
def test_speed(tmp_path: Path, speed: float, recorded_s: float, least_s: float) -> None:
    """At speed 1 a recording takes as long as it did, at 7,200 half a second for an hour, at 0 it
    is sent at once. Durations in it stay what they were.
    """
    lasts_us = int(recorded_s * SECOND_US)
    path = recording(tmp_path / "a.jsonl", run_of(0, lasts_us=lasts_us))
    began, began_us = time.monotonic(), time.time_ns() // 1_000
    _, sent = send(path, speed=speed)
    # Only a lower bound: replaying too quickly is wrong, slowly is the machine's.
    assert time.monotonic() - began >= least_s
    assert sent[3]["end_time"] - sent[3]["start_time"] == lasts_us
    assert began_us <= sent[3]["end_time"] <= time.time_ns() // 1_000


def test_a_start_that_names_an_end_far_ahead(tmp_path: Path) -> None:
    """Where the times of a recording are shifted, the latest that is named is the last, so that
    none lies in the future.
    """
    start = run_of(0)[0] | {"end_time": NOW_US + 2 * 86_400 * SECOND_US}
    report, sent = send(recording(tmp_path / "a.jsonl", [start]), speed=0)
    assert (report.sent, report.bad) == (1, 0)
    assert sent[0]["end_time"] <= time.time_ns() // 1_000


@settings(max_examples=40, deadline=None)
@given(events=st.lists(valid_events, min_size=1, max_size=8))
def test_what_was_acceptable_stays_so(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    """Every acceptable event of a recording is acceptable when it is sent, and the runs keep their
    shape.
    """
    path = recording(tmp_path_factory.mktemp("replay") / "a.jsonl", events)
    good = [json.dumps(e).encode() for e in events]
    good = [
        value for value in good if isinstance(accept_value(value, timestamp_us=NOW_US), Accepted)
    ]
    transport = MemoryTransport()
    report = replay(path, Settings(), speed=0, transport=transport)
    assert report.sent == len(good)
    assert len({record.key for record in transport.records}) == len(
        {json.loads(value)["trace_id"] for value in good}
    )
    for record in transport.records:
        accepted = accept_value(record.value, timestamp_us=time.time_ns() // 1_000)
        assert isinstance(accepted, Accepted)


def test_progress(tmp_path: Path) -> None:
    """Progress is reported up to the end, in lines and in bytes of the file."""
    path = recording(
        tmp_path / "a.jsonl.gz", [step for number in range(200) for step in run_of(number)]
    )
    reported: list[ReplayProgress] = []
    send(path, on_progress=reported.append)
    assert reported[-1] == ReplayProgress(800, 800, 0, path.stat().st_size, path.stat().st_size)
    assert [each.lines for each in reported] == sorted(each.lines for each in reported)


def test_more_than_the_transport_takes_at_once(tmp_path: Path) -> None:
    """A transport with little room is waited for, and nothing is lost."""
    transport = MemoryTransport(room=3)
    path = recording(
        tmp_path / "a.jsonl", [step for number in range(20) for step in run_of(number)]
    )
    report = replay(path, Settings(), speed=0, transport=transport)
    assert (report.delivered, len(transport.records), transport.closed) == (80, 80, 1)


def test_what_cannot_be_delivered(tmp_path: Path) -> None:
    """Failed deliveries are counted, the first with its reason."""
    transport = MemoryTransport(failure="no such topic")
    report = replay(
        recording(tmp_path / "a.jsonl", run_of(0)), Settings(), speed=0, transport=transport
    )
    assert (report.sent, report.delivered, report.failed, report.first_failure) == (
        4,
        0,
        4,
        "no such topic",
    )


def test_errors_contain_what_to_do(tmp_path: Path) -> None:
    """No file, a file that is no gzip, no brokers and a negative speed are errors in words."""
    with pytest.raises(ReplayError, match=r"missing\.jsonl cannot be read"):
        send(tmp_path / "missing.jsonl")
    (tmp_path / "a.gz").write_bytes(b"text")
    with pytest.raises(ReplayError, match="cannot be read"):
        send(tmp_path / "a.gz")
    with pytest.raises(ReplayError, match="stepstream up"):
        replay(tmp_path / "missing.jsonl", Settings())
    with pytest.raises(ValueError, match="negative"):
        send(tmp_path / "a.gz", speed=-1)


def test_an_empty_recording(tmp_path: Path) -> None:
    """Nothing is sent of nothing."""
    report, sent = send(recording(tmp_path / "a.jsonl", []))
    assert (sent, report.lines) == ([], 0)


@given(st.binary(min_size=16, max_size=16), st.text("0123456789abcdef", min_size=16, max_size=32))
def test_fresh_ids(salt: bytes, old: str) -> None:
    """An id maps to the same id within a replay, to another in the next, and has the right form."""
    ids = FreshIds(salt)
    assert ids.trace(old) == FreshIds(salt).trace(old) != FreshIds(salt[::-1] + b"x").trace(old)
    assert (len(ids.trace(old)), len(ids.step(old))) == (32, 16)
