"""Baselines: exact in any order and with repeats, robust, never learnt from the evaluated run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.fleet import FleetBaselineStruct, LearntDayStruct
from stepstream.schemas.times import DAY_US, SECOND_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.baselines.days import KEPT_DAYS, day_weights
from stepstream.stream.baselines.history import MIN_RUNS, SHARES, Owner
from stepstream.stream.baselines.learner import EARLIER_US, PUBLISH_EVERY_US, Learner, baseline_key
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.records import apply_baselines, kind_of, owner_of
from stepstream.stream.baselines.sketch import (
    ACCURACY,
    MOST,
    Sketch,
    amount_of,
    bucket_of,
    quantiles,
)

DAY = 20_000
NOON_US = DAY * DAY_US + DAY_US // 2
OWNER = Owner("shop", "prod", "support", "refund")
amounts = st.integers(0, 10**13)


def decode(value: bytes | None) -> FleetBaselineStruct:
    return msgspec.json.decode(value or b"", type=FleetBaselineStruct)


def run(number: int, usd: float = 0.1, at_us: int = NOON_US, **more: Any) -> RunSummaryStruct:
    """A closed run."""
    fields: dict[str, Any] = {
        "kind": "run",
        "project": "shop",
        "environment": "prod",
        "agent": "support",
        "task": "refund",
        "trace_id": f"{number:032x}",
        "revision": 3,
        "status": "ok",
        "time": at_us,
        "first_append_time": at_us - SECOND_US,
        "duration_us": 2 * SECOND_US,
        "steps": 5,
        "llm_calls": 2,
        "input_tokens": 1_000,
        "output_tokens": 100,
        "cost_usd": f"{usd:.9f}",
    }
    return RunSummaryStruct(**(fields | more))


def learn(runs: list[RunSummaryStruct]) -> Learner:
    learner = Learner()
    for number, item in enumerate(runs):
        learner.closed(item, NOON_US + number)
    return learner


def published(learner: Learner, now_us: int = NOON_US) -> dict[Owner, FleetBaselineStruct]:
    """A learner's present baselines of all owners, whatever it has published before."""
    day = now_us // DAY_US
    return {
        owner: history.baseline(owner, now_us, day)
        for owner, history in sorted(learner.histories.items())
    }


def median_usd(learner: Learner, now_us: int = NOON_US) -> float:
    return published(learner, now_us)[OWNER].values["cost_nanos"][SHARES.index(0.5)] / 1e9


class TestSketch:
    @given(st.lists(amounts, min_size=1, max_size=200))
    def test_quantiles_are_true_to_the_accuracy(self, values: list[int]) -> None:
        """A quantile is the value at its rank, two per cent off at most, over thirteen decades."""
        sketch = Sketch()
        for value in values:
            sketch.add(bucket_of(value))
        ordered = sorted(values)
        for share, found in zip(SHARES, quantiles([(sketch, 1.0)], SHARES), strict=True):
            rank = max(1, -int(-share * len(ordered) // 1))
            # A share such as 0.05 of 20 is no exact number.
            near = ordered[max(0, rank - 2) : rank + 1]
            assert any(abs(found - value) <= (ACCURACY + 1e-6) * value for value in near)

    @given(st.lists(amounts, max_size=60), st.randoms(use_true_random=False))
    def test_order_and_what_was_taken_out_again_leave_no_trace(
        self, values: list[int], rng: random.Random
    ) -> None:
        """Adding and removing are exact and commute."""
        sketch, other = Sketch(), Sketch()
        shuffled = [*values, 7, 10**9]
        rng.shuffle(shuffled)
        for value in values:
            sketch.add(bucket_of(value))
        for value in shuffled:
            other.add(bucket_of(value))
        for value in (10**9, 7):
            other.add(bucket_of(value), -1)
        assert other.total == sketch.total == len(values)
        assert quantiles([(other, 1.0)], SHARES) == quantiles([(sketch, 1.0)], SHARES)

    def test_it_is_bounded(self) -> None:
        """Amounts of any size and number take no more than a fixed number of counts."""
        sketch = Sketch()
        for power in range(40):
            for _ in range(50):
                sketch.add(bucket_of(10**power))
        sketch.add(bucket_of(0))
        assert len(sketch.counts) <= bucket_of(MOST) + 2 < 900
        assert amount_of(bucket_of(10**30)) == pytest.approx(MOST, rel=ACCURACY)
        assert quantiles([(Sketch(), 1.0)], SHARES) == [0.0] * len(SHARES)


class TestDays:
    def test_a_busy_day_counts_as_an_ordinary_one(self) -> None:
        """Ten times the runs on one day do not make it ten times as important."""
        runs = dict.fromkeys(range(DAY - 7, DAY), 100) | {DAY: 1_000}
        weights = day_weights(runs, DAY)
        mass = {day: weights[day] * count for day, count in runs.items()}
        assert mass[DAY] == 100
        assert mass[DAY] / sum(mass.values()) < 0.2

    def test_days_fade_and_old_ones_are_gone(self) -> None:
        """A week ago counts half; what is older than the history does not count."""
        # Ten runs each, so that only age makes a difference.
        weights = day_weights({DAY: 10, DAY - 7: 10, DAY - KEPT_DAYS: 10}, DAY)
        assert weights == {DAY - 7: 0.5, DAY: 1.0}

    def test_a_bad_day_is_not_learnt_as_normal(self) -> None:
        """After two ordinary weeks, a day with tenfold costs and twice as many runs
        leaves a run at five times the usual cost far above what is normal."""
        runs = [
            run(100 * day + n, 0.1 + 0.001 * n, NOON_US - (14 - day) * DAY_US)
            for day in range(14)
            for n in range(20)
        ]
        bad = [run(9_000 + n, 1.0) for n in range(40)]
        values = published(learn(runs + bad))[OWNER].values["cost_nanos"]
        assert values[SHARES.index(0.5)] / 1e9 == pytest.approx(0.11, rel=0.05)
        assert values[SHARES.index(0.8)] / 1e9 < 0.13

    def test_a_slow_drift_is_followed(self) -> None:
        """Costs that grow by 2 % a day are never more than a third above the baseline."""
        learner = Learner()
        for day in range(60):
            usd, at_us = 0.1 * 1.02**day, NOON_US + day * DAY_US
            if day > 3:
                assert usd / median_usd(learner, at_us) < 1.33
            for number in range(20):
                learner.closed(run(100 * day + number, usd, at_us), at_us)
            learner.settle(at_us)


class TestLearner:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 15), st.integers(1, 3), st.integers(1, 10**6)), max_size=60
        ),
        st.randoms(use_true_random=False),
    )
    def test_order_and_repeats_change_nothing(
        self, seen: list[tuple[int, int, int]], rng: random.Random
    ) -> None:
        """Each run counts once, at its highest revision, in any order and with any repeats."""
        newest = {(number, revision): micros for number, revision, micros in seen}
        items = [
            run(n, micros / 1e6, revision=2 * r + 1, steps=r) for (n, r), micros in newest.items()
        ]
        again = items + rng.choices(items, k=20) if items else []
        rng.shuffle(again)
        highest = {item.trace_id: item for item in sorted(items, key=lambda item: item.revision)}
        assert published(learn(again)) == published(learn(list(highest.values())))

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 5))
    def test_a_restart_anywhere_changes_nothing(self, seed: int, crashes: int) -> None:
        """Settled runs come from the fleet topic, pending ones from usage: each run counts once.

        A crash may lose any of the last writes; what was written of them knows what it contains.
        """
        rng = random.Random(seed)
        log = revised_log(rng)
        world = World()
        for position, (now_us, item) in enumerate(log):
            world.learner.closed(item, now_us)
            # Seals come between records, at no round number of them.
            if position % 7 == 6:
                world.seal(now_us - LATENESS_US, rng)
            if world.dies or rng.random() < crashes / 20:
                world.restart(log[: position + 1])
        assert published(world.learner) == published(learn([item for _, item in log]))

    def test_only_whole_runs_with_known_costs_are_learnt(self) -> None:
        """A stopped or lost run is incomplete; a step without a price makes the cost unknown."""
        runs = [
            run(1),
            run(2, status="stopped"),
            run(3, status="incomplete"),
            run(4, status="cancelled"),
            run(5, status="error"),
        ]
        found = published(learn([*runs, run(6, unpriced_steps=1)]))[OWNER]
        # Runs 1, 5 and 6; the cost of 6 is unknown.
        assert (found.runs, found.priced_runs) == (3, 2)

    def test_a_later_revision_may_belong_to_another_owner(self) -> None:
        """The root came late: the run moves, nothing of it stays behind."""
        found = published(learn([run(1, task="guess"), run(1, revision=5)]))
        assert {owner.task: baseline.runs for owner, baseline in found.items() if owner.agent} == {
            "": 1,
            "guess": 0,
            "refund": 1,
        }

    def test_what_comes_after_its_time_is_not_learnt_twice(self) -> None:
        """A settled run that is read once more changes nothing."""
        learner = learn([run(1)])
        learner.settle(NOON_US + SECOND_US)
        learner.closed(run(1), NOON_US)
        assert published(learner)[OWNER].runs == 1

    def test_old_runs_that_are_imported_are_learnt_for_their_own_day(self) -> None:
        """History brought in today counts for the days on which it happened."""
        learner = Learner()
        for day in range(40):
            learner.closed(
                run(day, time=NOON_US - day * DAY_US, first_append_time=NOON_US), NOON_US
            )
        found = published(learner)[OWNER]
        assert (found.days, found.runs) == (KEPT_DAYS, KEPT_DAYS)

    def test_old_days_are_deleted(self) -> None:
        """History is bounded, on the topic too."""
        learner = learn([run(1)])
        learner.settle(NOON_US + SECOND_US)
        records = dict(learner.settle(NOON_US + KEPT_DAYS * DAY_US))
        assert records[b"shop|learnt|prod|support|refund|20000"] is None
        assert records[baseline_key(OWNER)] is None
        assert not learner.histories


class TestPublishing:
    def test_learning_is_shown_and_a_settled_baseline_is_left_alone(self) -> None:
        """Each run leads to a record until there are enough; then a change does, rate-limited."""
        learner, now_us, shown = Learner(), NOON_US, []
        for number in range(200):
            now_us += PUBLISH_EVERY_US
            learner.closed(run(number, 0.1 + 0.0001 * (number % 7), now_us), now_us)
            shown += [
                decode(value).runs
                for key, value in learner.publish(now_us)
                if key == baseline_key(OWNER)
            ]
        assert shown[:MIN_RUNS] == list(range(1, MIN_RUNS + 1))
        # Of 200 runs: a settled baseline changes little, and each record is read by all workers.
        assert len(shown) < 60

    def test_nothing_is_published_more_often_than_it_should(self) -> None:
        """A hundred runs in a second make one record, and what came meanwhile is not forgotten."""
        learner = Learner()
        records = []
        for number in range(100):
            learner.closed(run(number), NOON_US)
            records += [key for key, _ in learner.publish(NOON_US) if key == baseline_key(OWNER)]
        assert len(records) == 1
        later = [decode(value).runs for _, value in learner.publish(NOON_US + PUBLISH_EVERY_US + 2)]
        assert later == [100, 100, 100]

    def test_the_version_before_stays_known_for_runs_that_began_under_it(self) -> None:
        """A restarted worker can evaluate a run by what was known when it began."""
        learner, book = Learner(), Baselines()
        for number in range(40):
            learner.closed(run(number), NOON_US)
        learner.publish(NOON_US + 1)
        for number in range(40, 80):
            learner.closed(run(number, 0.9, NOON_US + EARLIER_US), NOON_US)
        for _, value in learner.publish(NOON_US + EARLIER_US + 5):
            book.apply(decode(value))
        began_before = book.pin(OWNER, NOON_US + EARLIER_US, MIN_RUNS)
        began_after = book.pin(OWNER, NOON_US + EARLIER_US + SECOND_US, MIN_RUNS)
        assert began_before is not None
        assert began_after is not None
        assert (began_before.runs, began_after.runs) == (40, 80)


class TestPin:
    def book(self, **runs_of: int) -> Baselines:
        """Baselines of a task, its agent and its project, learnt from as many runs."""
        book = Baselines()
        owners = {
            "task": OWNER,
            "agent": OWNER._replace(task=""),
            "project": OWNER._replace(task="", agent=""),
        }
        for name, count in runs_of.items():
            history = learn([run(n, 0.1) for n in range(count)]).histories[OWNER]
            book.apply(history.baseline(owners[name], NOON_US, DAY))
        return book

    def test_a_new_task_uses_its_agents_baseline_and_a_new_agent_its_projects(self) -> None:
        """The narrowest with enough runs; the widest there is where none has enough."""
        for runs_of, wanted, whose in (
            ({"task": 30, "agent": 60, "project": 90}, 30, "support/refund"),
            # One run too few for the task.
            ({"task": 29, "agent": 60, "project": 90}, 30, "support"),
            ({"task": 5, "agent": 29, "project": 90}, 30, "project shop"),
            ({"project": 90}, 30, "project shop"),
            ({"task": 12, "agent": 12, "project": 12}, 30, "project shop"),
        ):
            found = self.book(**runs_of).pin(OWNER, NOON_US, wanted)
            assert found is not None
            assert found.whose == whose

    def test_a_baseline_made_after_a_run_began_does_not_apply_to_it(self) -> None:
        """So that no run is ever part of its own baseline."""
        book = self.book(task=40)
        assert book.pin(OWNER, NOON_US - 1, 30) is None
        assert book.pin(OWNER, NOON_US, 30) is not None

    def test_where_no_rule_asks_nothing_is_looked_up(self) -> None:
        """A run without such rules carries nothing in its state."""
        assert self.book(task=40).pin(OWNER, NOON_US, 0) is None

    def test_records_may_come_in_any_order_and_again(self) -> None:
        """The newest version that precedes a run applies, however the topic was read."""
        versions = [
            learn([run(n) for n in range(30 + k)])
            .histories[OWNER]
            .baseline(OWNER, NOON_US + k, DAY)
            for k in range(5)
        ]
        for seed in range(10):
            book = Baselines()
            mixed = versions * 2
            random.Random(seed).shuffle(mixed)
            for version in mixed:
                book.apply(version)
            found = [book.pin(OWNER, NOON_US + k, 30) for k in range(5)]
            assert [normal.runs if normal is not None else 0 for normal in found] == [
                30,
                31,
                32,
                33,
                34,
            ]


@dataclass
class Stored:
    """A record of the fleet topic."""

    name: bytes
    content: bytes | None

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.content


class TestRecords:
    def test_only_baselines_are_taken_and_what_cannot_be_read_is_ignored(self) -> None:
        """The fleet topic holds much else; a broken record leaves the one before in force."""
        value = msgspec.json.encode(
            learn([run(n) for n in range(30)]).histories[OWNER].baseline(OWNER, NOON_US, DAY)
        )
        key = baseline_key(OWNER)
        book = Baselines()
        records = [
            Stored(key, value),
            Stored(key, b"{broken"),
            Stored(b"shop|window|x|y", value),
            Stored(b"!fuse|baseline|x", value),
        ]
        assert apply_baselines(book, records) == 1
        assert book.pin(OWNER, NOON_US, 30) is not None
        assert apply_baselines(book, [Stored(key, None)]) == 1
        assert book.pin(OWNER, NOON_US, 30) is None

    @given(*[st.text(max_size=8) for _ in range(4)])
    def test_keys_name_their_owner_exactly(
        self, project: str, environment: str, agent: str, task: str
    ) -> None:
        """Whatever agents and tasks are called."""
        owner = Owner(project, environment, agent, task)
        assert owner_of(baseline_key(owner)) == owner
        assert kind_of(baseline_key(owner)) == "baseline" or project.startswith("!")


LATENESS_US = 300 * SECOND_US


def revised_log(rng: random.Random) -> list[tuple[int, RunSummaryStruct]]:
    """Runs that close every 30 s; late steps change some of them within four minutes."""
    log: list[tuple[int, RunSummaryStruct]] = []
    for number in range(60):
        at_us = NOON_US + number * 30 * SECOND_US
        more = {"task": rng.choice(("refund", "order")), "first_append_time": at_us}
        for revision in range(rng.choice((1, 1, 1, 2, 3))):
            later_us = at_us + revision * rng.randrange(240) * SECOND_US // 3
            log.append(
                (later_us, run(number, rng.random(), at_us, revision=2 * revision + 3, **more))
            )
    return sorted(log, key=lambda seen: seen[0])


class World:
    """A learner between crashes: which writes the fleet topic has, and up to where completely."""

    def __init__(self) -> None:
        self.learner = Learner()
        self.fleet: dict[bytes, bytes] = {}
        self.settled_until = 0
        self.dies = False

    def seal(self, until: int, rng: random.Random) -> None:
        """Settle; at times the process crashes with some of it written, without a checkpoint."""
        records = self.learner.settle(until)
        self.dies = rng.random() < 0.2
        written = rng.sample(records, rng.randrange(len(records) + 1)) if self.dies else records
        self.fleet |= {key: value or b"" for key, value in written}
        if not self.dies:
            self.settled_until = until

    def restart(self, log: list[tuple[int, RunSummaryStruct]]) -> None:
        """Read the fleet topic, then the usage topic from before whatever was pending."""
        self.learner, self.dies = Learner(), False
        days = [
            msgspec.json.decode(value, type=LearntDayStruct)
            for value in self.fleet.values()
            if value
        ]
        self.learner.restore(days, settled_until=self.settled_until)
        for now_us, item in log:
            self.learner.closed(item, now_us)
