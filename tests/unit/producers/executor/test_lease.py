"""The lease of an executor, with times passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.producers.executor.heartbeat import CHECK_S, CONFIRM_S, Heartbeats
from stepstream.producers.executor.lease import Lease, beat_interval_s


def test_attempts_stop_before_the_lease_ends() -> None:
    lease = Lease(45.0, 100.0)
    assert not lease.is_lost(129.9)
    assert lease.is_lost(130.0)
    assert lease.kill_at_s == 137.5
    lease.renew(105.0)
    assert not lease.is_lost(130.0)
    # An acknowledgement that arrives late does not shorten it.
    lease.renew(101.0)
    assert lease.sent_s == 105.0


def test_heartbeats_are_sent_more_often_for_a_short_lease() -> None:
    assert beat_interval_s(45.0) == 5.0
    assert beat_interval_s(9.0) == 1.0
    assert beat_interval_s(600.0) == 5.0


def test_nothing_is_sent_before_hello_is_acknowledged() -> None:
    beats = Heartbeats(9.0)
    assert not beats.is_due(1e9)
    assert not beats.reports_loss(1e9)
    assert not beats.kills(1e9)


def test_a_lost_lease_is_reported_once_and_never_renewed() -> None:
    beats = Heartbeats(9.0)
    beats.begin(0.0)
    assert beats.is_due(0.0)
    assert not beats.is_due(0.5)
    assert beats.is_due(1.0)
    assert not beats.reports_loss(5.9)
    assert beats.reports_loss(6.0)
    assert not beats.reports_loss(6.1)
    assert not beats.is_due(7.0)
    # Two seconds to confirm, although five sixths of the lease have passed at 7.5.
    assert not beats.kills(7.9)
    assert beats.kills(6.0 + CONFIRM_S)


def test_after_a_freeze_the_executor_has_time_to_stop_its_attempts() -> None:
    """Both processes were frozen for a minute: nothing could be reported meanwhile."""
    beats = Heartbeats(9.0)
    beats.begin(0.0)
    assert beats.reports_loss(60.0)
    assert not beats.kills(60.0 + CONFIRM_S - 0.1)
    assert beats.kills(60.0 + CONFIRM_S)


@given(
    lease_s=st.floats(3, 3_600),
    late=st.lists(st.floats(0, 100), min_size=1, max_size=20),
    acknowledged=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_no_heartbeat_is_sent_after_the_executor_may_have_lost_its_lease(
    lease_s: float, late: list[float], acknowledged: list[bool]
) -> None:
    """Whatever is acknowledged and however late the process runs."""
    beats = Heartbeats(lease_s)
    beats.begin(0.0)
    now_s, lost_at = 0.0, None
    for more_s, is_acknowledged in zip(late, acknowledged, strict=False):
        now_s += more_s
        if beats.is_due(now_s):
            assert lost_at is None
            if is_acknowledged and beats.lease is not None:
                beats.lease.renew(now_s)
        if beats.reports_loss(now_s):
            lost_at = now_s
        assert 0 <= beats.wait_s(now_s) <= CHECK_S
