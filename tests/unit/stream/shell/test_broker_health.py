"""Failed brokers: a client that can still read must not take missing records for silence."""

from __future__ import annotations

import time

from faust.types import TP

from stepstream.schemas.settings import Settings
from stepstream.stream.core.outputs import Output
from stepstream.stream.shell.broker_health import LEADER_S, STALLED_S, BrokerHealth
from stepstream.stream.shell.sender import Sender
from tests.support.stream_bench import Bench, policy, root

FIRST, SECOND = TP("steps", 0), TP("steps", 1)


class Cluster:
    """What a client knows of brokers, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stalled = 0.0
        self.leaders: dict[TP, int | None] = {FIRST: 1, SECOND: 2}
        self.health = BrokerHealth(
            lambda: self.stalled, lambda tp: self.leaders[tp], lambda: self.now
        )


def test_steady_leaders_are_healthy() -> None:
    """The first sight of a leader is no change."""
    cluster = Cluster()
    assert not cluster.health.has_failed(FIRST)
    cluster.now += 1_000
    assert not cluster.health.has_failed(FIRST)


def test_a_new_leader_counts_as_failure_for_its_partition_for_a_while() -> None:
    """Long enough for a partition whose state is being read to notice it."""
    cluster = Cluster()
    assert not cluster.health.has_failed(FIRST)
    assert not cluster.health.has_failed(SECOND)
    cluster.leaders[FIRST] = 3
    assert cluster.health.has_failed(FIRST)
    assert not cluster.health.has_failed(SECOND)
    cluster.now += LEADER_S - 0.1
    assert cluster.health.has_failed(FIRST)
    cluster.now += 0.2
    assert not cluster.health.has_failed(FIRST)


def test_a_leader_that_is_away_counts_as_failure_when_it_goes_and_when_it_is_back() -> None:
    """-1 means that there is none; None that it is not known."""
    cluster = Cluster()
    cluster.health.has_failed(FIRST)
    cluster.leaders[FIRST] = None
    assert not cluster.health.has_failed(FIRST)
    for leader in (-1, 1):
        cluster.leaders[FIRST] = leader
        assert cluster.health.has_failed(FIRST)
        # For this long after a change of the leader fetches do not show that nothing more came.
        cluster.now += LEADER_S
        assert not cluster.health.has_failed(FIRST)


def test_outputs_without_acknowledgement_count_as_failure_everywhere() -> None:
    """What delays the worker's records delays those of all producers."""
    cluster = Cluster()
    cluster.stalled = STALLED_S
    assert not cluster.health.has_failed(FIRST)
    cluster.stalled = STALLED_S + 0.1
    assert cluster.health.has_failed(FIRST)
    assert cluster.health.has_failed(SECOND)


def test_a_sender_knows_for_how_long_nothing_was_acknowledged() -> None:
    """Nothing under way is no stall, however long."""
    sender = Sender(Settings(kafka_brokers="127.0.0.1:1"))
    sender.poll()
    time.sleep(0.05)
    sender.poll()
    assert sender.stalled_s() == 0
    sender.send(Output("findings", b"shop", b"{}"), lambda _output, _offset: None)
    sender.poll()
    assert sender.stalled_s() == 0
    time.sleep(0.1)
    assert sender.stalled_s() == 0  # who has not polled cannot know
    sender.poll()
    assert 0.1 <= sender.stalled_s() < 5


def test_deadlines_wait_while_brokers_have_failed() -> None:
    """The clock goes on, but timers wait until producers had time to catch up."""
    bench = Bench(policy({"rule": "run_duration", "limit": "3s"}))
    bench.send(root("start", 0.0), 0.0)
    bench.wait(2.5)
    bench.logic.delay_timers()
    bench.wait(12)
    assert bench.findings() == []
    bench.wait(13)
    assert len(bench.findings()) == 1
