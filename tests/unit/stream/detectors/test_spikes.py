"""Spikes: a running run against others' totals; none before enough is known; restart-safe."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from stepstream.schemas.fleet import FleetBaselineStruct
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state
from stepstream.stream.baselines.history import AMOUNTS, SHARES
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.core.outputs import Output
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_bench import PRICES, Bench, policy, root, sentence_of, step, us

Sent = tuple[float, dict[str, Any]]

# Dollars of the bench agent's runs, at each of `SHARES`: median 0.10, p80 0.15, p99 0.40.
COSTS = (0.05, 0.07, 0.10, 0.14, 0.15, 0.20, 0.30, 0.40, 0.50)


def baseline(runs: int = 40, as_of_s: float = -60.0, **more: Any) -> FleetBaselineStruct:
    """What is normal for the bench's agent."""
    usual = {
        "cost_nanos": [usd * 1e9 for usd in COSTS],
        "duration_us": [20e6 * usd for usd in COSTS],
        "tokens": [100_000 * usd for usd in COSTS],
        "steps": [100 * usd for usd in COSTS],
        "llm_calls": [40 * usd for usd in COSTS],
    }
    assert tuple(usual) == AMOUNTS
    fields: dict[str, Any] = {
        "project": "default",
        "agent": "tester",
        "as_of": us(as_of_s),
        "runs": runs,
        "priced_runs": runs,
    }
    return FleetBaselineStruct(**(fields | {"shares": list(SHARES), "values": usual} | more))


class SpikeBench(Bench):
    """A bench whose workers know a baseline."""

    def __init__(
        self, *rules: dict[str, Any], known: FleetBaselineStruct | None = None, **more: Any
    ) -> None:
        self.baselines = Baselines()
        self.baselines.apply(known or baseline())
        others = [
            {"rule": name, "enabled": False}
            for name in ("loop", "run_cost_spike")
            if all(r["rule"] != name for r in rules)
        ]
        super().__init__(policy(*rules, *others), **more)

    def _new_logic(self) -> AssemblePartition:
        return AssemblePartition(
            0, 1, rules=self.rules, prices=PRICES, limits=self.limits, baselines=self.baselines
        )


COST: dict[str, Any] = {"rule": "run_cost_spike"}
BEGIN: Sent = (0.0, root("start", 0.0))
END: Sent = (9.0, root("end", 0.0, 9.0))


def think(number: int, usd: str, **more: Any) -> Sent:
    """A model call that costs something."""
    at_s = 0.2 * number
    return at_s, step(
        number,
        "end",
        at_s - 0.1,
        at_s,
        **{"kind": "llm_call", "model": "m", "cost_usd": usd, **more},
    )


def search(number: int, query: str) -> Sent:
    """A tool call that costs nothing."""
    at_s = 0.2 * number
    return at_s, step(
        number,
        "end",
        at_s - 0.1,
        at_s,
        kind="tool_call",
        name="search_docs",
        tool="search_docs",
        input=query,
    )


def play(bench: Bench, *sent: Sent) -> Bench:
    for at_s, item in sent:
        bench.send(item, at_s)
    bench.wait(bench.now_s + 0.6)
    return bench


def levels(bench: Bench) -> list[tuple[str, str]]:
    """Severity and message of each finding, a set in force."""
    return sorted((f.get("severity", "warning"), f["finding_id"]) for f in bench.findings())


COSTLY = (BEGIN, think(2, "0.1"), think(3, "0.1"), think(4, "0.101"))
VERY_COSTLY = (BEGIN, think(2, "0.2"), think(3, "0.2"), think(4, "0.7"))


class TestCost:
    def test_it_is_raised_while_the_run_goes_with_its_baseline(self) -> None:
        """Value, threshold, baseline with sample size, rank among others, and what cost most."""
        (found,) = play(SpikeBench(COST), *COSTLY).findings()
        assert sentence_of(found) == (
            "$0.301 so far, 3.0 x the median $0.10, more than 95 % of runs in all "
            "(40 runs of tester); still running, step 4"
        )
        assert (found["value"], found["threshold"]) == (pytest.approx(0.301), pytest.approx(0.3))
        assert (found["baseline"], found["baseline_runs"]) == (pytest.approx(0.1), 40)
        assert (found["alert"], found["unit"], found["running"]) == ("run-cost-spike", "usd", True)
        assert found.get("severity", "warning") == "warning"

    def test_ten_times_the_median_beyond_nearly_all_runs_is_an_error(self) -> None:
        """What was a warning is raised again, once, with a higher severity."""
        warned, louder = play(SpikeBench(COST), *VERY_COSTLY, think(5, "0.9"), END).findings()
        assert (warned.get("severity", "warning"), louder["severity"]) == ("warning", "error")
        assert "p99 is $0.40" in louder["message"]

    @pytest.mark.parametrize(
        ("rule", "fires"),
        [
            ({}, True),
            ({"factor": 3.1}, False),
            ({"above": "p99"}, False),
            ({"above": "p95", "factor": 2}, True),
            ({"min_runs": 41}, False),
            ({"at_least_usd": 0.302}, False),
            ({"enabled": False}, False),
        ],
    )
    def test_every_condition_must_hold(self, rule: dict[str, Any], fires: bool) -> None:
        """The factor, the share of runs, enough runs, an amount that is worth a word."""
        assert bool(play(SpikeBench(COST | rule), *COSTLY).findings()) is fires

    @pytest.mark.parametrize(
        "known",
        [
            baseline(29),
            baseline(40, priced_runs=12),
            baseline(as_of_s=0.001),
            baseline(agent="another"),
            baseline(project="x"),
        ],
    )
    def test_without_a_valid_baseline_nothing_is_raised(self, known: FleetBaselineStruct) -> None:
        """Few runs, costs unknown, learnt after the begin, another agent's or project's."""
        assert play(SpikeBench(COST, known=known), *VERY_COSTLY).findings() == []

    def test_it_is_on_without_any_policy_and_stops_nothing(self) -> None:
        """Once a baseline has learnt."""
        bench = SpikeBench(COST)
        bench.rules = Bench().rules
        bench.logic = bench._new_logic()
        (found,) = play(bench, *COSTLY).findings(alert="run-cost-spike")
        assert (found.get("action", ""), found.get("policy", "")) == ("", "")

    def test_the_order_of_records_does_not_matter_nor_do_repeats(self) -> None:
        """All levels that the sum passes are raised, whichever step came first."""
        wanted = levels(play(SpikeBench(COST), *VERY_COSTLY))
        assert len(wanted) == 2
        for order in itertools.permutations(item for _, item in VERY_COSTLY):
            sent = [(0.1 * place, item) for place, item in enumerate(order)]
            assert levels(play(SpikeBench(COST), *sent)) == wanted
            assert (
                levels(play(SpikeBench(COST), *(seen for seen in sent for _ in range(2)))) == wanted
            )

    def test_a_restart_anywhere_changes_nothing_though_the_baseline_has_moved(self) -> None:
        """A run is evaluated to its end by the baseline of its begin."""
        for place in range(len(VERY_COSTLY) + 1):
            bench = SpikeBench(COST)
            for at_s, item in VERY_COSTLY[:place]:
                bench.send(item, at_s)
            bench.swap()
            later = baseline(
                900, as_of_s=-1.0, values={name: [1e12] * len(SHARES) for name in AMOUNTS}
            )
            if place:
                bench.baselines.apply(later)
            assert levels(play(bench, *VERY_COSTLY[place:])) == levels(
                play(SpikeBench(COST), *VERY_COSTLY)
            )

    def test_it_is_written_to_the_state_before_it_is_sent(self) -> None:
        """A replay may lack the baseline: the run's state has the finding, to resolve it."""
        bench = SpikeBench(COST)
        for offset, (_, item) in enumerate(COSTLY):
            bench.process(item, 0.1 * offset)
        bench.logic.flush()
        sent: list[Output] = []
        while outputs := bench.logic.take_outputs():
            for output in outputs:
                sent.append(output)
                bench.logic.acknowledged(output)
        topics = [output.topic for output in sent]
        # After a crash in between, the state has the finding and sends it again; the other way
        # round an alert would be open that no worker knows.
        assert topics.index("state") < topics.index("findings")
        state = decode_state(
            next(output.value or b"" for output in sent if output.topic == "state")
        )
        assert [fired.alert for _, fired in state.fired] == ["run-cost-spike"]
        assert state.normal is not None
        assert state.normal.runs == 40

    def test_it_ends_with_its_run(self) -> None:
        """A cost that was spent stays spent; the alert ends when the run does."""
        bench = play(SpikeBench(COST), *COSTLY, END)
        bench.wait(30)
        assert [f["alert"] for f in bench.findings("resolved")] == ["run-cost-spike"]

    def test_a_late_step_that_makes_a_closed_run_expensive_raises_and_resolves(self) -> None:
        """Raised first, then resolved: no alert stays open."""
        bench = play(SpikeBench(COST), BEGIN, think(2, "0.1"), END)
        bench.wait(30)
        # Five times the cost of the closed run.
        at_s, late = think(3, "0.5")
        bench.send(late, 31 + at_s)
        bench.wait(40)
        assert [f.get("state", "firing") for f in bench.values("findings")] == [
            "firing",
            "resolved",
        ]

    def test_the_root_decides_whose_run_it_is(self) -> None:
        """Steps of another agent came first; the baseline of its root's agent applies."""
        # Compared with this one the run would be cheap.
        other = baseline(agent="helper", values={name: [1.0] * len(SHARES) for name in AMOUNTS})
        bench = SpikeBench(COST)
        bench.baselines.apply(other)
        first = think(2, "0", agent="helper")
        assert (
            play(bench, (0.0, first[1]), (0.1, root("start", 0.0)), think(3, "0.2")).findings()
            == []
        )


class TestCause:
    def detail(self, *sent: Sent) -> str:
        (found,) = play(SpikeBench(COST), BEGIN, *sent).findings()
        return str(found["detail"])

    def test_the_same_call_again_and_again_is_named(self) -> None:
        """What models cost counts for the call that they led to."""
        sent = [
            event
            for n in range(2, 14, 2)
            for event in (think(n, "0.05"), search(n + 1, "refund policy"))
        ]
        assert self.detail(*sent, think(20, "0.001")) == (
            "100 % of it went into 6 x search_docs with the same input; 7 model calls so far, "
            "half of the runs need no more than 4 in all"
        )

    def test_a_tool_is_named_where_no_single_call_is_repeated(self) -> None:
        """Many different searches."""
        sent = [
            event
            for n in range(2, 14, 2)
            for event in (think(n, "0.05"), search(n + 1, f"query {n}"))
        ]
        assert self.detail(*sent, think(20, "0.001")).startswith(
            "100 % of it went into 6 x search_docs;"
        )

    def test_else_the_model_and_else_the_most_expensive_step(self) -> None:
        """No tools were called; or one step alone did it."""
        assert self.detail(*(think(n, "0.11") for n in range(2, 5))).startswith(
            "100 % of it went into 3 x m;"
        )
        assert self.detail(think(2, "0.01"), think(3, "0.4", model="big")).startswith(
            "its most expensive step, big, is 98 % of it;"
        )

    def test_it_does_not_depend_on_the_order_of_records(self) -> None:
        """The sentence is made of the run, not of the way it came in."""
        sent = [
            event
            for n in range(2, 14, 2)
            for event in (think(n, "0.03"), search(n + 1, f"query {n % 4}"))
        ]
        details = set()
        for seed in range(6):
            mixed = [item for _, item in sent]
            random.Random(seed).shuffle(mixed)
            bench = SpikeBench(COST)
            for item in (BEGIN[1], *mixed):
                bench.process(item, 0.0)
            bench.process(think(30, "0.2")[1], 0.1)
            details.add(play(bench).findings()[-1]["detail"])
        assert len(details) == 1


class TestOthers:
    def test_tokens(self) -> None:
        """The same evaluation over tokens."""
        rule = {"rule": "run_tokens_spike", "at_least": 1_000}
        calls = [
            think(n, "0", usage={"input_tokens": 9_000, "output_tokens": 1_100})
            for n in range(2, 6)
        ]
        (found,) = play(SpikeBench(rule), BEGIN, *calls).findings()
        assert found["message"].startswith(
            "30,300 tokens so far, 3.0 x the median 10,000 tokens, more than 95 % of runs"
        )
        assert found["unit"] == "tokens"

    def test_steps(self) -> None:
        """The same evaluation over ended steps."""
        (found,) = play(
            SpikeBench({"rule": "run_steps_spike"}),
            BEGIN,
            *(search(n, str(n)) for n in range(2, 40)),
        ).findings()
        assert (found["value"], found["threshold"], found["baseline"]) == (31, 30, 10)

    def test_a_run_that_takes_too_long_is_reported_by_timer(self) -> None:
        """Median 2 s, p99 8 s: raised after 10 s without any further record; then at 20 s."""
        bench = play(SpikeBench({"rule": "run_duration_spike"}), BEGIN)
        bench.wait(9.9)
        assert bench.findings() == []
        bench.wait(11)
        assert len(bench.findings()) == 1
        bench.swap()
        bench.wait(60)
        assert [f.get("severity", "warning") for f in bench.findings()] == ["warning", "error"]

    def test_a_duration_is_reported_by_the_root_where_no_timer_ran(self) -> None:
        """Old records, read late."""
        bench = SpikeBench(
            {"rule": "run_duration_spike"}, limits=AssembleLimits(max_run_age_us=10**15)
        )
        (found, louder) = play(bench, (100.0, root("end", 0.0, 50.0))).findings()
        assert found["message"].startswith("50 s so far")
        assert louder["severity"] == "error"
