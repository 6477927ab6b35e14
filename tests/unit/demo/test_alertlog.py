"""The latency of alerts, as the demo measures and prints it."""

from __future__ import annotations

from examples.demo.alertlog import cause_us, summary
from examples.demo.ledger import Account
from examples.demo.scenarios import DEADLINE_US, HUNG_AFTER_US, STEP_LIMIT_US
from stepstream.schemas.alert import Alert


def alert(rule: str, opened_at: int, value: float | None = None) -> Alert:
    return Alert(
        alert_id="a",
        seq=1,
        state="firing",
        severity="error",
        alert=rule,
        rule=rule,
        project="shop",
        opened_at=opened_at,
        updated_at=opened_at,
        value=value,
    )


def account() -> tuple[Account, list[int]]:
    """A run of two steps, and when its events were made."""
    made = Account("a" * 32, "slow", "analyst", "report")
    with made.step(), made.step():
        pass
    return made, list(made._journal.events_us)


def test_an_event_causes_what_is_seen_after_it() -> None:
    """The cause is the run's last event that the worker can have seen; a later one is none."""
    made, times = account()
    assert cause_us(alert("loop", times[-1] + 500_000), made) == times[-1]
    # Before the run began: the clocks of Kafka and the demo need not agree.
    assert cause_us(alert("loop", times[0] - 5_000), made) is None


def test_a_deadline_causes_what_time_alone_brings() -> None:
    """Deadlines count from the run's beginning, from its last event, or from the step's start."""
    made, times = account()
    assert cause_us(alert("run_duration", times[-1] + DEADLINE_US), made) == times[0] + DEADLINE_US
    assert (
        cause_us(alert("hung_step", times[-1] + HUNG_AFTER_US + 9), made)
        == times[-1] + HUNG_AFTER_US
    )
    late = alert("step_duration", 50_000_000, value=STEP_LIMIT_US + 70_000.0)
    assert cause_us(late, made) == 50_000_000 - 70_000


def test_latencies_are_summed_up_in_words() -> None:
    """Median, slowest and number; ``none`` without any."""
    assert summary([10_000, 20_000, 90_000]) == "median 20 ms, slowest 90 ms (3)"
    assert summary([]) == "none"
