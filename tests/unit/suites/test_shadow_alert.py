"""A candidate that is worse on production's inputs: when that is shown, and the alert about it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from stepstream.evals.gate.sequence import MIN_SESSIONS, compare
from stepstream.evals.gate.trials import Header, Results, Trial, results_of
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.trajectory import TrajectoryStruct
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.core.records import LogRecord
from stepstream.suites.shadow import Shadowed, finding_of

NOW_US = 1_790_000_000_000_000


def sessions(rng: random.Random, number: int, rate: float) -> Iterator[Trial]:
    """Sessions of three runs, whose rates differ as those of users do."""
    for session in range(number):
        own = min(1.0, max(0.0, rng.gauss(rate, 0.2)))
        for run in range(3):
            yield Trial(f"s{session}", run, success=rng.random() < own)


def side(trials: Iterator[Trial] | list[Trial], name: str = "production") -> Results:
    return results_of(name, trials, Header(1, "shadow", "", name))


def shadowed(candidate_rate: float, number: int = 200) -> Shadowed:
    rng = random.Random(7)
    production = side(sessions(rng, number, 0.8))
    candidate = side(sessions(rng, number, candidate_rate), "my_agent:v13")
    about = TrajectoryStruct(
        trace_id="a" * 32, revision=3, status="ok", project="shop", agent="support",
        environment="prod",
    )  # fmt: skip
    return Shadowed(production, candidate, about=about)


def test_an_unchanged_candidate_is_rarely_called_worse_however_often_it_is_evaluated() -> None:
    rng = random.Random(5)
    worse = 0
    for _ in range(60):
        both = [list(sessions(rng, 240, 0.6)) for _ in range(2)]
        # Evaluated after each 30 sessions: a test at 5 % would find something in one of five.
        worse += any(
            compare(*(side(trials[: 3 * done]) for trials in both)).is_worse
            for done in range(60, 241, 30)
        )
    assert worse <= 3


def test_a_loss_is_shown_from_enough_sessions_on() -> None:
    assert shadowed(0.5).compared().is_worse
    assert not shadowed(0.8).compared().is_worse
    few = shadowed(0.0, MIN_SESSIONS - 1).compared()
    assert (few.upper < 0, few.is_worse) == (True, False)


def test_unknown_outcomes_count_for_the_candidate() -> None:
    known = [Trial(f"s{n}", 0, success=True) for n in range(100)]
    unknown = [Trial(f"s{n}", 0, success=None) for n in range(100)]
    assert not compare(side(known), side(unknown)).is_worse
    assert compare(
        side(known), side([Trial(f"s{n}", 0, crashed=True) for n in range(100)])
    ).is_worse


def test_the_finding_opens_one_alert_a_day() -> None:
    found = shadowed(0.4)
    first, again = (finding_of(found, NOW_US + later) for later in (0, 3_600_000_000))
    assert first is not None
    assert again is not None
    assert first.finding_id == again.finding_id
    assert finding_of(shadowed(0.8), NOW_US) is None
    stage = AlertPartition(0)
    for offset, finding in enumerate((first, again)):
        value = msgspec.json.encode(finding)
        stage.process(LogRecord(offset, NOW_US // 1_000, b"shop", value))
    alerts = [
        msgspec.json.decode(output.value or b"", type=AlertStruct)
        for output in stage.take_outputs()
        if output.topic == "alerts"
    ]
    assert {alert.alert_id for alert in alerts} == {alerts[0].alert_id}
    newest = alerts[-1]
    assert (newest.alert, newest.severity, newest.agent) == ("shadow_worse", "error", "support")
    assert newest.message.startswith("my_agent:v13 succeeds in ")
