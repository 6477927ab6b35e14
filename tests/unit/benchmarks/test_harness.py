"""What benchmarks report: fixed goals, readable numbers, and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import stopwatch
from benchmarks.harness import Goal, Report, Table, percentile, show
from benchmarks.latency import event_to_trajectory
from benchmarks.machine import CpuMeter, cpu_seconds, machine_facts, pss_bytes
from benchmarks.stopwatch import Stopwatch
from benchmarks.visible import Seen, latencies
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("reached", "at_most", "met"),
    [
        (9.0, True, True),
        (10.0, True, True),
        (10.1, True, False),
        (10.0, False, True),
        (9.9, False, False),
        (None, True, False),
    ],
)
def test_a_goal_is_met_at_its_bound_and_never_unmeasured(
    reached: float | None, at_most: bool, met: bool
) -> None:
    """What was not measured is not met."""
    assert Goal("speed", reached, 10.0, "us", at_most=at_most).met is met


def test_the_json_holds_all_that_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures, ratios, goals with value and verdict, machine and versions.

    Wrong numbers make the exit code.
    """
    report = Report(
        "some", quick=True, figures={"steps_per_s": 12_345.678}, ratios={"ours_to_theirs": 0.5}
    )
    report.goals.append(Goal("steps", 12_345.678, 20_000, "steps/s", at_most=False))
    assert report.finish(tmp_path / "out.json") == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["figures"] == {"steps_per_s": 12345.7}
    assert (
        written["goals"][0]
        | {"goal": 20_000, "reached": 12_345.678, "met": False, "comparison": "at least"}
        == written["goals"][0]
    )
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["msgspec"]
    assert written["quick"] is True
    report.wrong.append("lost: 1")
    assert report.finish(None) == 1
    assert "WRONG: lost: 1" in capsys.readouterr().out


def test_tables_align() -> None:
    """Texts to the left, numbers to the right, nothing measured is a dash."""
    text = Table(
        "t", ("engine", "us"), [("ours", 3.456), ("theirs", "not installed"), ("third", None)]
    ).render()
    assert text.splitlines()[1:] == [
        "engine             us",
        "------  -------------",
        "ours             3.46",
        "theirs  not installed",
        "third               -",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.0500"),
        (0.0, "0.00"),
        (1.234, "1.23"),
        (45.67, "45.7"),
        (12345.6, "12,346"),
        (7, "7"),
    ],
)
def test_numbers_show_what_matters(value: float, text: str) -> None:
    """About three digits."""
    assert show(value) == text


def test_percentiles_are_values_that_occurred() -> None:
    """The smallest value that the share does not exceed."""
    values = list(range(100, 0, -1))
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (
        50,
        99,
        100,
    )
    assert percentile([7.0], 0.99) == 7.0


def test_cpu_time_counts_children_that_have_ended() -> None:
    """A process's CPU time includes that of the processes it started, alive or not."""
    burn = "t = __import__('time').process_time\nwhile t() < 0.25: pass"
    script = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        "print('done', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        # Above the highest pid that Linux gives.
        meter = CpuMeter({"parent": [parent.pid], "gone": [2**22 + 1]})
        assert parent.stdout.readline() == b"done\n"
        used = meter.lap()
        assert used["parent"] >= 0.24
        assert used["gone"] == 0.0
        assert cpu_seconds([parent.pid]) >= 0.24
        parent.communicate(b"\n")


def test_memory_and_machine_are_reported() -> None:
    """This process holds memory, and the machine has a name."""
    assert machine_facts()["cpu"]
    if sys.platform == "linux":
        assert pss_bytes([os.getpid()]) > 5_000_000


def test_sections_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer's section does not contain the sections inside it."""
    # A clock of the test's own: on a busy machine a sleep of 50 ms took more than 200 ms.
    now_ns = [0]
    monkeypatch.setattr(stopwatch, "perf_counter_ns", lambda: now_ns[0])

    class Work:
        def outer(self) -> None:
            now_ns[0] += 20_000_000
            self.inner()

        def inner(self) -> None:
            now_ns[0] += 50_000_000

    before = Work.outer
    watch = Stopwatch()
    with watch.watching(
        {"outer": [(Work, "outer")], "inner": [(Work, "inner"), (Work, "no_such")]}
    ):
        Work().outer()
    assert Work.outer is before
    assert watch.calls == {"outer": 1, "inner": 1}
    assert watch.spent_us("outer") == 20_000
    assert watch.spent_us("inner") == 50_000


def test_latency_runs_to_the_first_trajectory_with_the_record() -> None:
    """Revision 2k (one more when closed) contains the k-th record.

    Records outside the window are left out.
    """
    # The second record is in revision 4, which is never published, and so in revision 6.
    sent = {"a": [10.0, 11.0, 11.5, 13.0], "b": [11.0]}
    arrived = {"a": [(10.1, 2.0), (12.0, 6.0), (13.4, 9.0)], "b": []}
    found = event_to_trajectory(sent, arrived, since_s=10.5, until_s=20)
    assert found.every == pytest.approx([1.0, 0.5, 0.4])
    assert found.opening == []
    assert found.missing == 1
    assert event_to_trajectory(sent, arrived, since_s=0, until_s=10.5).opening == pytest.approx(
        [0.1]
    )


def test_what_is_visible_is_what_the_store_answered() -> None:
    """A record counts from the first answer whose highest offset reaches it, partition by
    partition.
    """
    seen = {0: Seen([1.0, 2.0], [10, 20]), 1: Seen()}
    took, missing = latencies(
        [(0.5, 0, 10), (0.5, 0, 11), (1.5, 0, 20), (0.0, 0, 21), (0.0, 1, 0)], seen
    )
    assert took == [0.5, 1.5, 0.5]
    assert missing == 2


def test_a_benchmark_runs_from_the_command_line(tmp_path: Path) -> None:
    """``python -m benchmarks.NAME --quick --json FILE`` prints a table and writes its figures."""
    file = tmp_path / "logic.json"
    command = [sys.executable, "-m", "benchmarks.logic", "--quick", "--json", str(file)]
    command += ["--events", "2000", "--open-runs", "50", "--append-rate", "1000"]
    root = ROOT
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "decode and accept" in done.stdout
    figures = json.loads(file.read_text())["figures"]
    assert figures["us_per_event"] > 0
    assert figures["state_records_us_per_event"] > 0
