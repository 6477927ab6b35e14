"""Window detectors: fire on their problem, end with it, and need a baseline to compare with."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from stepstream.schemas.rules import default_rules
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.usage.detectors import Group, make_window_detector
from stepstream.stream.usage.detectors.burn import ErrorSlo, LatencySlo, SuccessSlo
from stepstream.stream.usage.detectors.drop import SuccessDrop, chance_of
from stepstream.stream.usage.detectors.silence import Silence
from stepstream.stream.usage.detectors.spike import SpendSpike
from stepstream.stream.usage.detectors.spike_model import SpikeModel
from stepstream.stream.usage.detectors.versions import (
    ALPHA,
    VersionWorse,
    mixture_ratio,
)
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.series import Series
from stepstream.stream.usage.windows.totals import COST, STEPS
from stepstream.stream.usage.windows.version_book import VersionBook, VersionState
from tests.support.usage_world import T0, Item, play, progress, records, rules, used
from tests.support.usage_world import closed as closed_run

MONDAY_US = T0 - (T0 // HOUR_US + 72) % 168 * HOUR_US


class Past:
    """The past of one agent, written down directly."""

    def __init__(self) -> None:
        self.series = Series()

    def scored(self, minute_us: int, met: int, failed: int, unknown: int = 0) -> None:
        """Runs with the status ok that Criteria were evaluated for."""
        counts = {"true": met, "false": failed, "unknown": unknown}
        for row in self.series.rows(minute_us):
            for success, count in counts.items():
                for _ in range(count):
                    row.run("ok", 1_000, 1, success)

    def runs(self, minute_us: int, good: int, failed: int = 0, took_us: int = 1_000) -> None:
        """Runs that ended in a minute."""
        for row in self.series.rows(minute_us):
            for _ in range(good):
                row.run("ok", took_us, 1)
            for _ in range(failed):
                row.run("error", took_us, 1)

    def spent(self, minute_us: int, usd: float, steps: int) -> None:
        """What steps of a minute cost."""
        for row in self.series.rows(minute_us):
            row.sums[COST] += round(usd * 1e9)
            row.sums[STEPS] += steps

    def group(self, now_us: int) -> Group:
        """As a detector sees it."""
        return Group("shop", "", "a", [self.series], now_us - 10 * MINUTE_US)


def evaluate(
    rule: Any, past: Past, now_us: int, book: VersionBook | None = None
) -> list[WindowObservation]:
    return list(
        make_window_detector(rule, book or VersionBook()).evaluate(past.group(now_us), now_us)
    )


# -- objectives

ERRORS = ErrorSlo(rule="error_slo", objective=0.99)


@pytest.mark.parametrize(
    ("failed_share", "minutes", "expected"),
    [
        (0.0, 600, []),
        (0.01, 600, []),
        (0.05, 600, []),
        (0.08, 600, ["6 h 0 m"]),
        (0.20, 600, ["1 h 0 m"]),
        (0.02, 4_400, ["3 d 0 h"]),
    ],
)
def test_error_budgets_burn_at_the_rates_of_the_workbook(
    failed_share: float, minutes: int, expected: list[str]
) -> None:
    """14.4 times in 1 h, 6 times in 6 h, once in 3 days, each with a shorter window as well."""
    past = Past()
    for minute in range(minutes):
        past.runs(
            T0 + minute * MINUTE_US, round(100 * (1 - failed_share)), round(100 * failed_share)
        )
    assert [
        observation.level for observation in evaluate(ERRORS, past, T0 + minutes * MINUTE_US)
    ] == expected


def test_a_burn_that_is_over_is_no_longer_seen() -> None:
    """The short window ends an alert soon after the failures end, before the long window does."""
    past = Past()
    for minute in range(120):
        past.runs(T0 + minute * MINUTE_US, 5, 5 if minute < 60 else 0)
    assert evaluate(ERRORS, past, T0 + 61 * MINUTE_US)[0].severity == "critical"
    assert [t.level for t in evaluate(ERRORS, past, T0 + 66 * MINUTE_US)] == ["6 h 0 m"]
    assert evaluate(ERRORS, past, T0 + 95 * MINUTE_US) == []


def test_two_failures_are_bad_luck() -> None:
    """Few runs raise nothing, whatever rate their failures make."""
    past = Past()
    past.runs(T0 + HOUR_US - MINUTE_US, 17, 2)
    assert evaluate(ERRORS, past, T0 + HOUR_US) == []
    past.runs(T0 + HOUR_US - MINUTE_US, 0, 1)
    assert evaluate(ERRORS, past, T0 + HOUR_US) != []


def test_an_objective_that_is_low_still_notices_that_everything_fails() -> None:
    """14.4 times what 10 % allow is more than all: most runs failing is enough."""
    past = Past()
    for minute in range(60):
        # Nine of ten fail; the objective allows one of ten.
        past.runs(T0 + minute * MINUTE_US, 1, 9)
    observations = evaluate(ErrorSlo(rule="error_slo", objective=0.9), past, T0 + HOUR_US)
    assert [observation.severity for observation in observations] == ["critical"]


def test_latency_objectives_count_slow_runs() -> None:
    """Runs over the limit burn; those under it do not."""
    rule = LatencySlo(rule="latency_slo", objective=0.99, limit="60s")
    past = Past()
    for minute in range(60):
        past.runs(T0 + minute * MINUTE_US, 8, took_us=50_000_000)
    assert evaluate(rule, past, T0 + HOUR_US) == []
    for minute in range(60):
        past.runs(T0 + minute * MINUTE_US, 2, took_us=90_000_000)
    (observation,) = evaluate(rule, past, T0 + HOUR_US)
    assert "120 of 600 runs took longer than 1 m 0 s in the last 1 h 0 m" in observation.message
    assert observation.baseline_runs == 600


QUALITY = SuccessSlo(rule="success_slo", objective=0.9)


def test_quality_objectives_burn_by_criteria_and_count_no_unknown_run() -> None:
    """Runs that end ok and fail their Criteria burn; unknown ones are in no share."""
    past = Past()
    for minute in range(60):
        # Of the known ones a third fails; with the unknown ones it would be one in sixteen.
        past.scored(T0 + minute * MINUTE_US, 2, 1, unknown=13)
    assert evaluate(ERRORS, past, T0 + HOUR_US) == []
    rule = SuccessSlo(rule="success_slo", objective=0.98)
    (observation,) = evaluate(rule, past, T0 + HOUR_US)
    assert observation.message.startswith("60 of 180 runs failed their Criteria in the last 1 h")
    assert observation.value == pytest.approx(1 / 3)
    assert observation.baseline_runs == 180


def test_quality_objectives_without_criteria_see_nothing() -> None:
    """Failed runs that no Criteria match are no failures of quality."""
    past = Past()
    for minute in range(60):
        past.runs(T0 + minute * MINUTE_US, 5, 5)
        past.scored(T0 + minute * MINUTE_US, 0, 0, unknown=5)
    assert evaluate(QUALITY, past, T0 + HOUR_US) == []


# -- failures without an objective


def test_a_drop_in_success_needs_a_past() -> None:
    """Half of all runs failing is raised where 2 % did; not where unknown, or half always did."""
    rule = SuccessDrop(rule="success_drop")
    now_us = T0 + 3 * DAY_US
    # Of 100: 2 failed, 50 failed, and nothing is known.
    for failed_before, expected in ((2, 1), (50, 0), (None, 0)):
        past = Past()
        if failed_before is not None:
            for hour in range(60):
                past.runs(T0 + hour * HOUR_US, 100 - failed_before, failed_before)
        past.runs(now_us - 10 * MINUTE_US, 20, 20)
        assert len(evaluate(rule, past, now_us)) == expected


def test_a_drop_in_success_by_criteria_is_found_where_all_runs_end_ok() -> None:
    """Of 20 runs an hour 1 failed its Criteria, then 15; unknown ones change nothing."""
    rule = SuccessDrop(rule="success_drop")
    now_us = T0 + 3 * DAY_US
    past = Past()
    for hour in range(60):
        past.scored(T0 + hour * HOUR_US, 19, 1)
    past.scored(now_us - 10 * MINUTE_US, 5, 15, unknown=40)
    (observation,) = evaluate(rule, past, now_us)
    assert observation.message == (
        "15 of 20 runs failed their Criteria in the last 1 h 0 m, 75 %; usually 5.0 % do"
    )
    assert observation.level == "criteria"
    past.scored(now_us - 5 * MINUTE_US, 200, 0)
    assert evaluate(rule, past, now_us) == []


def test_a_drop_that_both_senses_show_is_reported_once() -> None:
    """Runs that end with an error usually fail their Criteria too."""
    now_us = T0 + 3 * DAY_US
    past = Past()
    for hour in range(60):
        past.scored(T0 + hour * HOUR_US, 20, 0)
    for row in past.series.rows(now_us - 10 * MINUTE_US):
        for _ in range(20):
            row.run("error", 1_000, 1, "false")
    (observation,) = evaluate(SuccessDrop(rule="success_drop"), past, now_us)
    assert observation.level == ""


def test_chance_of_failures_adds_up() -> None:
    """The tail is a probability: all of it is one, it falls, and a long past makes it smaller."""
    tails = [chance_of(failed, 30, 5, 200) for failed in range(31)]
    assert tails[0] == pytest.approx(1.0)
    # More failures are less likely: a tail that rose would raise alerts for good news.
    assert all(after < before for before, after in itertools.pairwise(tails))
    assert chance_of(10, 30, 50, 2_000) < chance_of(10, 30, 1, 40)


# -- silence


def office_hours(days: Iterable[int]) -> Past:
    """Steps from 9 to 17 on weekdays."""
    past = Past()
    for day in days:
        if day % 7 < 5:
            for minute in range(9 * 60, 17 * 60):
                past.spent(MONDAY_US + day * DAY_US + minute * MINUTE_US, 0.01, 2)
    past.series.forget(MONDAY_US + (max(days) + 1) * DAY_US)
    return past


@pytest.mark.parametrize(
    ("known_days", "day", "hour", "expected"),
    [
        (28, 28, 11, True),  # a Monday morning like three others
        (28, 28, 3, False),  # a night
        (26, 26, 11, False),  # a Saturday
        (4, 4, 11, False),  # too little is known
    ],
)
def test_silence_is_what_is_silent_unusually(
    known_days: int, day: int, hour: int, expected: bool
) -> None:
    """Nights, weekends and the first week are no silence."""
    past = office_hours(range(known_days))
    now_us = MONDAY_US + day * DAY_US + hour * HOUR_US
    assert bool(evaluate(Silence(rule="silence"), past, now_us)) == expected


def test_silence_ends_with_the_first_step() -> None:
    """What came a minute ago is no silence."""
    past = office_hours(range(28))
    now_us = MONDAY_US + 28 * DAY_US + 11 * HOUR_US
    past.spent(now_us - 2 * MINUTE_US, 0.01, 1)
    assert evaluate(Silence(rule="silence"), past, now_us) == []


# -- versions


def summary(version: str, status: str, usd: float, at_us: int) -> RunSummaryStruct:
    return RunSummaryStruct(
        kind="run", project="shop", trace_id="t", revision=1, status=status, time=at_us, agent="a",
        agent_version=version, first_append_time=at_us, cost_usd=f"{usd:.9f}",
    )  # fmt: skip


def compared(
    seed: int, failing: tuple[float, float], cost: tuple[float, float], runs: int = 400
) -> set[str]:
    """Every level raised while runs of a new version came in one by one after an old one's."""
    rng, book = random.Random(seed), VersionBook()
    detector = make_window_detector(VersionWorse(rule="version_worse"), book)
    raised: set[str] = set()
    group = Group("shop", "", "a", [])
    for place, version in enumerate(("v1", "v2")):
        for number in range(runs):
            status = "error" if rng.random() < failing[place] else "ok"
            book.closed(
                summary(
                    version,
                    status,
                    cost[place] * rng.lognormvariate(0, 1),
                    T0 + place * DAY_US + number,
                )
            )
            if place:
                raised.update(
                    observation.level
                    for observation in detector.evaluate(group, T0 + DAY_US + number)
                )
    return raised


def test_a_new_version_that_is_no_worse_is_rarely_called_worse() -> None:
    """Checked after every run: over 150 equal rollouts at most a few are called worse."""
    # Tests that are repeated after every run find something sooner or later, unless the test is
    # made for it (mSPRT).
    called_worse = sum(bool(compared(seed, (0.1, 0.1), (0.2, 0.2), 200)) for seed in range(150))
    assert called_worse <= 4  # one in a hundred is promised


def test_a_new_version_that_is_worse_is_found() -> None:
    """Failures from 5 % to 20 %, costs to the double; each is named apart."""
    assert sum("failures" in compared(seed, (0.05, 0.2), (0.2, 0.2)) for seed in range(20)) >= 19
    assert sum("cost" in compared(seed, (0.05, 0.05), (0.2, 0.4)) for seed in range(20)) >= 19


def test_a_better_version_raises_nothing() -> None:
    """Less is not worse."""
    assert compared(1, (0.3, 0.02), (0.5, 0.1)) == set()


def test_the_ratio_is_that_of_the_paper() -> None:
    """Against the integral it stands for: likelihood ratio averaged over normal differences."""
    difference, variance, prior = 0.1, 0.0016, 0.01
    # The integral by a sum: 4,001 points give three digits.
    step, total = 0.0005, 0.0
    for number in range(-2_000, 2_001):
        true = number * step
        density = math.exp(-true * true / (2 * prior)) / math.sqrt(2 * math.pi * prior)
        total += density * math.exp((2 * difference * true - true * true) / (2 * variance)) * step
    assert mixture_ratio(difference, variance, prior) == pytest.approx(total, rel=1e-3)
    assert mixture_ratio(0.0, variance, prior) == 0.0 < ALPHA


def test_versions_survive_a_checkpoint() -> None:
    """A restart goes on with the same counts."""
    book, other = VersionBook(), VersionBook()
    for number in range(50):
        book.closed(summary(f"v{number // 30}", "ok", 0.1 + number, T0 + number))
    import msgspec

    other.restore(msgspec.json.decode(msgspec.json.encode(book.state()), type=VersionState))
    assert other.newest("shop", "", "a") == book.newest("shop", "", "a")


# -- spikes


def usual(hour: int, rng: random.Random) -> tuple[float, int]:
    """An hour with a cycle of day and week."""
    runs = max(
        1,
        round(
            rng.gauss(100, 10)
            * (1 + 0.5 * math.sin(hour * math.pi / 12))
            * (0.3 if hour // 24 % 7 > 4 else 1)
        ),
    )
    return sum(rng.lognormvariate(-3, 0.8) for _ in range(runs)), runs


def learnt(hours: int, seed: int = 1) -> tuple[SpikeModel, random.Random]:
    rng, model = random.Random(seed), SpikeModel()
    for hour in range(hours):
        model.learn(MONDAY_US + hour * HOUR_US, *usual(hour, rng))
    return model, rng


def test_a_spike_stands_out_of_the_cycle() -> None:
    """Five times the usual of that hour; no ordinary hour of three weeks, no first Monday."""
    model, rng = learnt(0)
    raised = []
    for hour in range(21 * 24):
        value, count = usual(hour, rng)
        at_us = MONDAY_US + hour * HOUR_US
        raised.append(model.is_spike(at_us, value, count))
        if hour > 14 * 24 and hour % 7 == 0:
            assert model.is_spike(at_us, 5 * value, count)
            assert model.is_spike(at_us, 5 * value, 5 * count)
        model.learn(at_us, value, count)
    # 504 hours without a false alarm.
    assert sum(raised) == 0


def test_cold_start_raises_nothing() -> None:
    """Before three days nothing is a spike."""
    model, _ = learnt(71)
    assert not model.is_spike(MONDAY_US + 71 * HOUR_US, 1e9, 100)
    model.learn(MONDAY_US + 71 * HOUR_US, *usual(71, random.Random(2)))
    assert model.is_spike(MONDAY_US + 72 * HOUR_US, 1e9, 100)


def test_the_first_week_has_a_higher_threshold() -> None:
    """Four times the usual is raised once a week is known; before that it must be more."""
    # The same four times the usual, before and after a week is known.
    for days, expected in ((4, False), (16, True)):
        model, rng = learnt(days * 24)
        value, count = usual(days * 24, rng)
        assert model.is_spike(MONDAY_US + days * DAY_US, 4 * value, count) is expected
        assert model.is_spike(MONDAY_US + days * DAY_US, 10 * value, count)


def test_a_bad_day_is_not_learnt_as_normal() -> None:
    """Ten hours at ten times the usual: the same hour of the next day is evaluated as before."""
    model, rng = learnt(15 * 24)
    for hour in range(15 * 24, 15 * 24 + 10):
        value, count = usual(hour, rng)
        # Learnt as they are, these hours would make the next bad day normal.
        model.learn(MONDAY_US + hour * HOUR_US, 10 * value, count)
    for hour in range(15 * 24 + 10, 16 * 24):
        model.learn(MONDAY_US + hour * HOUR_US, *usual(hour, rng))
    value, count = usual(16 * 24, rng)
    assert model.is_spike(MONDAY_US + 16 * DAY_US, 5 * value, count)


def test_a_level_that_stays_becomes_normal() -> None:
    """Four times the cost for good is raised for a day at most."""
    model, rng = learnt(15 * 24)
    raised = []
    for hour in range(15 * 24, 18 * 24):
        value, count = usual(hour, rng)
        raised.append(model.is_spike(MONDAY_US + hour * HOUR_US, 4 * value, count))
        model.learn(MONDAY_US + hour * HOUR_US, 4 * value, count)
    assert raised[0]
    assert not any(raised[24:])


def test_a_spike_is_raised_while_its_hour_lasts() -> None:
    """And while the next hour goes on like it, but not an hour after it is over."""
    rng, past = random.Random(3), Past()
    detector = make_window_detector(SpendSpike(rule="spend_spike"), VersionBook())
    start = MONDAY_US + 14 * DAY_US
    for hour in range(14 * 24 + 2):
        value, count = usual(hour, rng)
        for part in range(60):
            factor = 8 if hour == 14 * 24 else 1
            past.spent(
                MONDAY_US + hour * HOUR_US + part * MINUTE_US,
                factor * value / 60,
                max(1, count // 60),
            )

    def seen(at_us: int) -> bool:
        visible = Past()
        visible.series.hours = {
            at: row for at, row in past.series.hours.items() if at < at_us - at_us % HOUR_US
        }
        visible.series.minutes = past.series.minutes
        for minute in range(at_us - at_us % HOUR_US, at_us, MINUTE_US):
            for row in visible.series.rows(minute)[1:]:
                row.join(past.series.minutes[minute])
        return bool(list(detector.evaluate(visible.group(at_us), at_us)))

    assert not seen(start)
    assert not seen(start + 5 * MINUTE_US)
    assert seen(start + 50 * MINUTE_US)
    assert seen(start + 65 * MINUTE_US)
    assert not seen(start + 100 * MINUTE_US)


# -- the evaluation of windows


def lifecycle(items: Sequence[Item], *documents: Item) -> list[tuple[str, str, str, str]]:
    """State, alert, severity and subject of the findings, in order."""
    kafka, _ = play(records(items), 0, window_rules=rules(*documents))
    return [(f["state"], f["alert"], f["severity"], f.get("subject", "")) for f in kafka.findings]


def test_a_budget_warns_breaks_and_ends_with_its_window() -> None:
    """80 % is a warning, more than all an error; the next day begins anew, per user and zone."""
    day = {"rule": "spend", "alert": "day", "limit_usd": 10}
    items = [progress(0)]
    # 5 and 8.5 of 10 dollars, then 10.5; the next day 9.
    for hour, usd in ((1, 5), (2, 3.5), (3, 2), (25, 0), (30, 9)):
        items += [used(f"t{hour}", hour * 60, 2, int(usd * 1e9)), progress(hour * 60 + 5)]
    assert [entry for entry in lifecycle(items, {"rules": [day]}) if entry[1] == "day"] == [
        ("firing", "day", "warning", "project shop, 2023-11-15"),
        ("firing", "day", "error", "project shop, 2023-11-15"),
        ("resolved", "day", "info", "project shop, 2023-11-15"),
        ("firing", "day", "warning", "project shop, 2023-11-16"),
    ]


def test_users_have_budgets_of_their_own() -> None:
    """One user's spending is not another's, and runs without a user have no budget."""
    rule = {
        "rule": "spend",
        "alert": "user",
        "per": "user_id",
        "window": "month",
        "limit_usd": 1,
        "warn_at": None,
    }
    items = [used(f"t{n}", n, 2, 400_000_000, user_id="u1" if n % 2 else "") for n in range(8)]
    (finding,) = play(records(items), 0, window_rules=rules({"rules": [rule]}))[0].findings
    assert finding["subject"] == "user_id u1, 2023-11"
    assert finding["value"] == pytest.approx(1.2)
    assert finding["message"] == "user_id u1, 2023-11: $1.20 spent, 120 % of the budget of $1.00"


def test_a_budget_is_exact_when_totals_grow_and_owners_change() -> None:
    """Running totals replace each other: growing from 1 to 3 dollars spends three, not six."""
    rule = {"rule": "spend", "alert": "agent", "per": "agent", "limit_usd": 3, "warn_at": None}
    items = [used("t", 0, revision, revision * 500_000_000) for revision in (2, 4, 6)]
    assert lifecycle(items, {"rules": [rule]}) == []
    items.append(used("t", 0, 8, 3_000_000_001))
    assert [entry[0] for entry in lifecycle(items, {"rules": [rule]})] == ["firing"]
    # One nano-dollar less, and the run has another owner: exactly the limit is no excess.
    items[-1] = used("t", 0, 8, 3_000_000_000, task="known now")
    assert lifecycle(items, {"rules": [rule]}) == []


def test_policies_apply_to_whom_they_match() -> None:
    """Another project's budget is not this one's."""
    rule = {"rule": "spend", "alert": "x", "limit_usd": "0.000001"}
    items = [used("t", 0, 2, 5_000)]
    assert lifecycle(items, {"rules": [rule], "match": {"project": "other"}}) == []
    assert len(lifecycle(items, {"rules": [rule], "match": {"project": "sh*", "task": ""}})) == 1


def test_objectives_fire_and_end_through_the_stage() -> None:
    """From closed runs to findings: one problem, raised once, ended when unseen for 5 minutes."""
    slo = {"rule": "error_slo", "alert": "slo", "objective": 0.99}
    items = [progress(0)]
    for minute in range(180):
        # A quarter of an hour in which every run fails.
        status = "error" if 70 <= minute < 85 else "ok"
        items += [closed_run(f"t{minute}-{n}", minute, 3, status) for n in range(4)] + [
            progress(minute + 1)
        ]
    found = [entry[::2] for entry in lifecycle(items, {"rules": [slo]}) if entry[1] == "slo"]
    assert found == [("firing", "critical"), ("resolved", "info")]


def test_quality_objectives_fire_and_end_through_the_stage() -> None:
    """A later revision that changes a run's success takes its first count back."""
    slo = {"rule": "success_slo", "alert": "quality", "objective": 0.99}
    items = [progress(0)]
    for minute in range(180):
        success = "false" if 70 <= minute < 85 else "true"
        for n in range(4):
            items.append(closed_run(f"t{minute}-{n}", minute, 3, success="false"))
            items.append(closed_run(f"t{minute}-{n}", minute, 5, success=success, reopened=True))
        items.append(progress(minute + 1))
    found = [entry[::2] for entry in lifecycle(items, {"rules": [slo]}) if entry[1] == "quality"]
    assert found == [("firing", "critical"), ("resolved", "info")]


def test_without_a_policy_a_quiet_start_raises_nothing() -> None:
    """Rules that are always on need to learn first: three days of an ordinary agent are no news."""
    rng = random.Random(5)
    items = [progress(0)]
    # Every ten minutes for three days, at costs of chance.
    for minute in range(0, 3 * 1_440, 10):
        items += [
            used(f"t{minute}", minute, 2, rng.randrange(10**8)),
            closed_run(f"t{minute}", minute, 3),
        ]
        items.append(progress(minute + 10))
    assert lifecycle(items) == []
    assert {type(rule).__name__ for rule in default_rules("window")} == {
        "SpendSpike",
        "SuccessDrop",
        "Silence",
        "VersionWorse",
    }


def test_a_rule_that_is_gone_ends_what_it_found() -> None:
    """No alert stays open that no rule evaluates any more."""
    from tests.support.usage_world import Kafka, Process

    slo = {"rule": "error_slo", "alert": "slo", "objective": 0.99}
    process = Process(Kafka(), random.Random(0), rules({"rules": [slo]}))
    failed = [closed_run(f"t{n}", 60, 3, "error") for n in range(30)]
    items = [
        progress(0),
        closed_run("first", 0, 3),
        progress(60),
        *failed,
        progress(62),
        progress(64),
    ]
    log = records(items)
    for record in log[:-1]:
        process.logic.process(record)
    process.logic.change_rules(rules())
    process.logic.process(log[-1])
    process.settle()
    assert [(f["state"], f["message"]) for f in process.kafka.findings if f["alert"] == "slo"][
        1:
    ] == [("resolved", "no rule applies to this any more")]
