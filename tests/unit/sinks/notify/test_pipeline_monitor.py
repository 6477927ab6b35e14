"""The pipeline monitor: what counts as progress, what as a stall; synthetic runs."""

from __future__ import annotations

import json
from typing import Any

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.alert import AlertStruct
from stepstream.sinks.notify.pipeline_monitor import (
    PROBE_AGENT,
    PipelineMonitor,
    ProgressReading,
    StallChange,
    alert_of,
    finding_of,
)
from stepstream.sinks.notify.synthetic_runs import INTERVAL_US, SyntheticRuns, synthetic_run
from stepstream.stream.alerts.partition import AlertPartition
from tests.support.notify_world import NOW, World, alert, subscription
from tests.support.stream_world import Rec

S = 1_000_000


def reading(part: str = "sink", topic: str = "steps", **fields: Any) -> ProgressReading:
    return ProgressReading(part, topic, **({"inputs": 100, "progress": 100, "lag": 0} | fields))


class Checks:
    """A monitor, and a clock that advances by five seconds with each check."""

    def __init__(self) -> None:
        self.monitor = PipelineMonitor(60 * S, 0.5, 5 * S)
        self.now = NOW

    def __call__(self, *readings: ProgressReading, times: int = 1) -> list[StallChange]:
        found = []
        for _ in range(times):
            self.now += 5 * S
            found += self.monitor.check(readings, self.now)
        return found


def test_work_without_progress_for_a_minute_is_a_stall() -> None:
    """Reported once, with the topic and the lag; over when something moves."""
    check = Checks()
    assert check(reading(lag=5, progress=95), times=12) == []
    (verdict,) = check(reading(lag=7, inputs=102, progress=95))
    assert (verdict.part, verdict.stalled) == ("sink", True)
    assert "no progress on steps: 7 records wait" in verdict.reason
    assert check(reading(lag=9, inputs=104, progress=95), times=20) == []
    assert check(reading(lag=8, inputs=104, progress=96)) == [StallChange("sink", False)]


def test_nothing_to_do_is_no_stall() -> None:
    """A pipeline without traffic is well; the first record after a long silence has its minute."""
    check = Checks()
    # No record arrives and none waits: the offsets stand still because there is no work.
    assert check(reading(), times=200) == []
    assert check(reading(inputs=101, lag=1), times=11) == []
    assert len(check(reading(inputs=101, lag=1))) == 1


def test_the_progress_of_a_worker_is_what_it_writes() -> None:
    """An open run keeps its committed offset back, so the lag does not show progress."""
    check = Checks()
    assert check(reading("worker", lag=-1, progress=50), times=100) == []
    for n in range(100):
        assert check(reading("worker", lag=-1, inputs=100 + n, progress=50 + n)) == []
    assert check(reading("worker", lag=-1, inputs=300, progress=149), times=11) == []
    assert (
        "101 records came" in check(reading("worker", lag=-1, inputs=300, progress=149))[0].reason
    )


def test_no_members_and_a_large_lag_are_stalls_too() -> None:
    """A group without members for a minute, and a lag that retention will overtake."""
    check = Checks()
    assert check(reading("worker", members=0), times=12) == []
    assert check(reading("worker", members=0))[0].reason.startswith("no worker runs")
    (verdict,) = check(reading(lag=60, progress=1, share=0.6))
    assert "60%" in verdict.reason


def test_a_suspended_machine_is_not_a_stall() -> None:
    """After a gap between checks all components start again."""
    check = Checks()
    check(reading(lag=5, progress=95), times=11)
    check.now += 3_600 * S
    assert check(reading(lag=5, progress=95), times=12) == []
    assert len(check(reading(lag=5, progress=95))) == 1


def test_the_alert_is_the_one_that_the_fleet_stage_makes() -> None:
    """The notifier delivers it itself, because no worker may run; a worker's alert is a
    repetition."""
    opened, later = NOW, NOW + 90 * S
    fleet = AlertPartition(0)
    for offset, (verdict, at) in enumerate(
        [
            (StallChange("worker", True, "no worker runs"), opened),
            (StallChange("worker", False), later),
        ]
    ):
        world = World(subscription())
        world.now = at
        finding = finding_of(verdict, at, opened)
        value = json.dumps(
            {
                name: getattr(finding, name)
                for name in finding.__struct_fields__  # type: ignore[attr-defined]
            }
        ).encode()
        fleet.process(Rec(offset, at // 1000, b"stepstream", value))
        made = json.loads(fleet.take_outputs()[0].value or b"")
        ours = alert_of(finding, opened)
        for name in ("alert_id", "seq", "state", "change"):
            assert made[name] == getattr(ours, name)
        world.delivery.add(ours, -1, at, at)
        world.publish(
            AlertStruct(
                **{
                    name: made.get(name, getattr(ours, name))
                    for name in ours.__struct_fields__  # type: ignore[attr-defined]
                }
            )
        )
        assert len(world.deliver()) == 1
        assert world.deliver(60) == []


def test_a_synthetic_run_is_valid_and_a_missing_alert_is_a_problem() -> None:
    """Its steps are accepted; its alert is sent only to subscriptions that name its agent."""
    probe = SyntheticRuns(30 * S)
    assert probe.problem(NOW) is None
    trace_id = probe.due(NOW)
    events = list(synthetic_run(trace_id, NOW))
    assert all(isinstance(accept_value(value, timestamp_us=NOW), Accepted) for value in events)
    # One synthetic run in an interval.
    assert probe.due(NOW + INTERVAL_US - 1) == ""
    assert probe.problem(NOW + 29 * S) is None
    assert "did not arrive" in str(probe.problem(NOW + 30 * S))
    probe.arrived(trace_id, NOW + 31 * S)
    assert (probe.problem(NOW + 32 * S), probe.latency_us) == ("", 31 * S)
    assert probe.due(NOW + INTERVAL_US) not in ("", trace_id)
    world = World(subscription(), subscription("probe", match={"agent": PROBE_AGENT}))
    world.publish(alert(agent=PROBE_AGENT))
    assert [one.subscription for one in world.deliver()] == ["probe"]
