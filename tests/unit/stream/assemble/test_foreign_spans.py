"""Runs that were made of spans: roots in other processes, duplicate usage, sessions named by one
step alone.

Whatever the order of the records, and over crashes.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from benchmarks.cases import case_files
from stepstream.schemas.money import nanos_from_usd
from stepstream.stream.assemble.closing import presumed_over_at
from stepstream.stream.run.limits import NEVER_US, AssembleLimits
from stepstream.stream.run.steps import StepInfo
from tests.support.data_cases import real_data
from tests.support.otlp import framework_spans, mapped
from tests.support.stream_bench import Bench, policy, root
from tests.support.stream_bench import step as bench_step
from tests.support.stream_world import START_US, Kafka, Process, Rec, event, play, record_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
USAGE = {"input_tokens": 100, "output_tokens": 10}


def step(number: int, parent: int = 0, **more: Any) -> dict[str, Any]:
    """An ended step."""
    start = START_US + number * 1_000
    parent_id = f"{parent:016x}" if parent else ""
    return event(TRACE, f"{number:016x}", parent_id, "end", start, start + 500, **more)


def call(number: int, parent: int, **more: Any) -> dict[str, Any]:
    """A model call as an instrumentation's span reports it."""
    fields = {"usage": USAGE, "cost_usd": "0.5", "usage_may_repeat": True} | more
    return step(number, parent, kind="llm_call", model="m", **fields)


def final(items: list[dict[str, Any]], seed: int, crash_rate: float = 0.0) -> dict[str, Any]:
    """The last trajectory of a run whose records come in an order of the seed's."""
    chance = random.Random(seed)
    order = items[:]
    chance.shuffle(order)
    kafka, _ = play(
        [record_of(offset, item) for offset, item in enumerate(order)],
        seed,
        crash_rate=crash_rate,
        limits=AssembleLimits(replay_records=2),
    )
    newest: dict[Any, dict[str, Any]] = {}
    for record in kafka.values("usage"):
        key = (record.get("agent", ""), record.get("minute"))
        if "minute" in record and record["revision"] >= newest.get(key, record)["revision"]:
            newest[key] = record
    (found,) = kafka.final().values()
    reported = sum(nanos_from_usd(record.get("cost_usd", "0")) for record in newest.values())
    assert reported == nanos_from_usd(found.get("cost_usd", "0"))
    return found


NESTED = [
    step(1),
    call(2, 1),  # the outer instrumentation
    call(3, 2),  # the inner one is the same call
    call(4, 1),  # another call
    step(5, 1, kind="other"),
    call(6, 5),
    step(7, 6, kind="other"),
    call(8, 7),  # below a step without a kind of its own
    step(9, 4, kind="tool_call"),
    call(10, 9),  # a tool's own call repeats nothing
]


@pytest.mark.parametrize("seed", range(30))
def test_a_call_reported_twice_counts_at_the_innermost(seed: int) -> None:
    """Parent and child come in different requests, in any order; some come after a restart."""
    found = final(NESTED, seed, crash_rate=0.2 if seed % 2 else 0.0)
    # A framework's span around a client's span repeats its tokens: added up they would be 800.
    assert found["input_tokens"] == 4 * 100
    assert found["llm_calls"] == 4
    assert nanos_from_usd(found["cost_usd"]) == 2_000_000_000


@pytest.mark.parametrize("seed", range(10))
def test_a_trajectory_names_the_calls_that_repeat_others(seed: int) -> None:
    """SQL leaves out their usage; also after a restart."""
    found = final(NESTED, seed, crash_rate=0.2 if seed % 2 else 0.0)
    assert found["repeated_step_ids"] == [f"{2:016x}", f"{6:016x}"]


def test_calls_of_the_sdk_are_each_their_own() -> None:
    """Only spans may repeat: the SDK's usage is never its children's."""
    # A model call below another one: an agent that a tool's model calls.
    own = [step(1), call(2, 1, usage_may_repeat=False), call(3, 2, usage_may_repeat=False)]
    assert final(own, 1)["input_tokens"] == 200


def test_an_outer_call_alone_counts() -> None:
    """The inner span has no usage, or never comes."""
    inner = call(3, 2, usage=None, cost_usd=None, usage_may_repeat=False)
    assert final([step(1), call(2, 1), inner], 1)["input_tokens"] == 100


@pytest.mark.parametrize("seed", range(5))
def test_recorded_traces_count_each_call_once(seed: int) -> None:
    """In any order, against the sums of the calls that have no call below them."""
    for path in case_files(real_data("otel_framework_traces")):
        steps = [one for span in framework_spans(path) for one in mapped(span)]
        above = {one.parent_step_id for one in steps if one.kind == "llm_call" and one.usage}
        expected = sum(
            one.usage.input_tokens for one in steps if one.usage and one.step_id not in above
        )
        shift = START_US - min(one.start_time for one in steps)
        items = [msgspec.to_builtins(one) for one in steps]
        for item in items:
            item["start_time"] += shift
            item["end_time"] += shift
            item.pop("first_token_time", None)
        assert final(items, seed).get("input_tokens", 0) == expected, path.name


def remote(number: int, parent: int, **more: Any) -> dict[str, Any]:
    """An agent's span below a span of a process that may never report."""
    return step(number, parent, kind="agent", name="agent", parent_remote=True, **more)


def closing(records: list[tuple[float, dict[str, Any]]], until_s: float) -> Kafka:
    """Process records at their times and let log time pass."""
    kafka = Kafka()
    process = Process(kafka, random.Random(1), AssembleLimits())
    waiting = sorted(records, key=lambda record: record[0])
    for tenth in range(round(until_s * 10)):
        now_us = START_US + tenth * 100_000
        due = [item for at_s, item in waiting if at_s * 10 <= tenth]
        waiting = waiting[len(due) :]
        base = process.logic.offsets.position
        process.batch(
            [
                Rec(
                    base + number,
                    now_us // 1_000,
                    item["trace_id"].encode(),
                    msgspec.json.encode(item),
                )
                for number, item in enumerate(due)
            ]
        )
        process.logic.tick(now_us)
        process.logic.flush()
        for _ in range(8):
            process.pump()
    return kafka


def closes(kafka: Kafka) -> list[dict[str, Any]]:
    return [value for value in kafka.values("trajectories") if value.get("closed")]


def test_a_run_whose_root_is_elsewhere_closes_in_under_five_seconds() -> None:
    """As a run: with the name, the agent and the status of the step whose parent is remote."""
    # Step 99 is in another process and never comes.
    items = [(0.0, remote(2, 99, agent="shopper")), (0.1, step(3, 2)), (0.2, call(4, 2))]
    kafka = closing(items, 5.0)
    (found, *_) = closes(kafka)
    assert found["status"] == "ok"
    assert (found["name"], found["agent"]) == ("agent", "shopper")
    assert found["root_step_id"] == f"{2:016x}"
    assert found["provisional"]
    (summary,) = [value for value in kafka.values("usage") if value.get("kind") == "run"]
    assert summary["provisional"]


@pytest.mark.parametrize("root_s", [1.0, 6.0, 300.0])
def test_a_later_root_takes_the_run_over(root_s: float) -> None:
    """A second, six seconds or five minutes later: the trajectory grows and names the root."""
    items = [(0.0, remote(2, 1, agent="shopper")), (0.1, call(4, 2)), (root_s, step(1, name="web"))]
    kafka = closing(items, root_s + 8)
    (found,) = kafka.final().values()
    assert found["closed"]
    assert (found["root_step_id"], found["name"]) == (f"{1:016x}", "web")
    assert found["steps"] == 3
    assert found["input_tokens"] == 100
    assert "provisional" not in found
    assert root_s < 2 or any(value.get("provisional") for value in closes(kafka))
    summaries = [value for value in kafka.values("usage") if value.get("kind") == "run"]
    assert "provisional" not in summaries[-1]
    revisions = [value["revision"] for value in kafka.values("trajectories")]
    # Readers keep the highest revision: one that went back would hide the new root.
    assert revisions == sorted(revisions)


def test_usage_moves_to_the_agent_of_a_later_root() -> None:
    """Steps without an agent count for the root's: the other agent's row is set to zero."""
    items = [
        (0.0, remote(2, 1, agent="inner")),
        (0.1, call(4, 2, agent="")),
        (6.0, step(1, agent="web", kind="agent")),
    ]
    newest: dict[str, dict[str, Any]] = {}
    kafka = closing(items, 15)
    for value in kafka.values("usage"):
        agent = value.get("agent", "")
        if "minute" in value and value["revision"] >= newest.get(agent, value)["revision"]:
            newest[agent] = value
    assert newest["web"]["input_tokens"] == 100
    assert newest["inner"].get("input_tokens", 0) == 0
    before = [value for value in kafka.values("usage") if value.get("agent") == "inner"]
    assert any(value.get("input_tokens") == 100 for value in before)


def test_a_later_root_brings_its_rules() -> None:
    """The policies of the root's agent replace those of the step that stood in for it."""
    inner = policy({"rule": "run_steps", "limit": 1}, name="inner", match={"agent": "inner"})
    web = policy({"rule": "run_steps", "limit": 3}, name="web", match={"agent": "web"})
    bench = Bench(inner, web)
    bench.send(bench_step(2, "start", 0.0, agent="inner", parent_remote=True), 0.0)
    assert {item.policy for item in bench.run.rules.applied} == {"", "inner"}
    bench.send(root("start", 0.0, agent="web"), 1.0)
    bench.send(bench_step(2, "end", 0.0, 1.5, agent="inner", parent_remote=True), 1.5)
    assert {item.policy for item in bench.run.rules.applied} == {"", "web"}
    assert not bench.findings(alert="run-steps")
    for number in (3, 4):
        bench.send(bench_step(number, "end", 2.0, 2.5), 2.5)
    (finding,) = bench.findings(alert="run-steps")
    assert (finding["policy"], finding["agent"]) == ("web", "web")


def test_two_agents_below_one_remote_parent_are_one_run() -> None:
    """Thirty seconds apart: the second one belongs to what was closed, and the first stays the
    root.
    """
    items = [(0.0, remote(2, 1)), (30.0, remote(5, 1)), (30.1, call(6, 5))]
    kafka = closing(items, 40)
    (found,) = kafka.final().values()
    assert (found["root_step_id"], found["steps"], found["closed"]) == (f"{2:016x}", 3, True)


@pytest.mark.parametrize("seed", range(10))
def test_the_root_does_not_depend_on_the_order(seed: int) -> None:
    """True root before stand-ins, the earliest stand-in before others."""
    items = [remote(3, 98), remote(2, 99), step(4, 2), step(5, 3)]
    assert final(items, seed)["root_step_id"] == f"{2:016x}"
    assert final([*items, step(9)], seed)["root_step_id"] == f"{9:016x}"


@pytest.mark.parametrize("seed", range(10))
def test_session_and_user_come_from_any_step(seed: int) -> None:
    """The root's where it names them, else those of the earliest step that does."""
    items = [
        step(1, user_id="root's"),
        step(2, 1, session_id="first", user_id="child's"),
        step(3, 1, session_id="second"),
    ]
    found = final(items, seed, crash_rate=0.2)
    assert (found["session_id"], found["user_id"]) == ("first", "root's")


def unflagged(number: int, parent: int, **more: Any) -> dict[str, Any]:
    """A span without flags: whether its parent is in another process is not known."""
    return step(number, parent, parent_unknown=True, **more)


def test_a_run_of_spans_without_flags_is_shown_as_closed_in_under_five_seconds() -> None:
    """Its root is in a process that never reports, and nothing states that."""
    items = [
        (0.0, unflagged(4, 2, kind="llm_call")),
        (0.1, unflagged(2, 99, kind="agent", name="shop", agent="shopper", status="error")),
    ]
    kafka = closing(items, 4.9)
    (found,) = closes(kafka)
    assert (found["status"], found["name"], found["agent"]) == ("error", "shop", "shopper")
    assert (found["root_step_id"], found["provisional"]) == (f"{2:016x}", True)
    # It counts in windows and baselines only when it has closed.
    assert not [value for value in kafka.values("usage") if value.get("kind") == "run"]
    kafka = closing(items, 70.0)
    (final,) = kafka.final().values()
    assert (final["closed"], final["provisional"], final["status"]) == (True, True, "error")
    (summary,) = [value for value in kafka.values("usage") if value.get("kind") == "run"]
    assert summary["provisional"]


@pytest.mark.parametrize("root_s", [1.0, 6.0, 50.0, 100.0])
def test_what_comes_later_corrects_a_run_without_flags(root_s: float) -> None:
    """It is open again as soon as more comes, and has its root in the end."""
    items = [
        (0.0, unflagged(4, 2, kind="llm_call")),
        (root_s - 0.5, unflagged(2, 1, kind="agent", agent="inner")),
        (root_s, step(1, name="web", agent="web")),
    ]
    kafka = closing(items, root_s + 8)
    (found,) = kafka.final().values()
    assert (found["closed"], found["name"], found["agent"]) == (True, "web", "web")
    assert "provisional" not in found
    published = kafka.values("trajectories")
    revisions = [value["revision"] for value in published]
    assert revisions == sorted(revisions)
    assert len({(value["revision"], value.get("closed", False)) for value in published}) == len(
        set(revisions)
    )
    summaries = [value for value in kafka.values("usage") if value.get("kind") == "run"]
    assert "provisional" not in summaries[-1]


def test_the_root_of_a_closed_run_without_flags_moves_up() -> None:
    """The oldest step without a parent stood in for it until that parent came."""
    items = [(0.0, unflagged(4, 3, kind="llm_call")), (70.0, unflagged(3, 2, name="outer"))]
    (found,) = closing(items, 75.0).final().values()
    assert (found["root_step_id"], found["provisional"]) == (f"{3:016x}", True)


def test_a_run_in_progress_is_not_presumed_over_by_its_flags() -> None:
    """The parent is in the same process, which exports it when it has ended."""
    items = [(0.0, call(4, 2)), (0.1, unflagged(5, 2))]
    assert not closes(closing(items, 55.0))
    (lost,) = closes(closing(items, 65.0))
    assert (lost["status"], lost.get("provisional", False)) == ("incomplete", False)
    open_step = unflagged(6, 2) | {"phase": "start", "end_time": None}
    assert not closes(closing([(0.0, unflagged(5, 2)), (0.1, open_step)], 55.0))


def test_a_run_whose_parents_go_in_a_circle_closes_as_incomplete() -> None:
    """Each of its spans without flags is below the other one."""
    kafka = closing([(0.0, unflagged(2, 3)), (0.1, unflagged(3, 2))], 70.0)
    (found,) = kafka.final().values()
    assert (found["status"], found["steps"], found["closed"]) == ("incomplete", 2, True)
    assert not kafka.values("findings")


class _CountedSteps(dict[str, StepInfo]):
    """Counts the look-ups of steps."""

    gets = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.gets += 1
        return super().get(key, default)


def test_a_root_on_a_circle_costs_no_walk_at_each_record() -> None:
    """A step without flags stood in for the root; then the step above it came, which names the
    first one as its parent.
    """
    bench = Bench()
    bench.send(bench_step(2, "end", 0.0, 0.1, parent=f"{3:016x}", parent_unknown=True), 0.1)
    bench.run.adopt_root()
    bench.send(bench_step(3, "end", 0.0, 0.2, parent=f"{2:016x}", parent_unknown=True), 0.2)
    assert bench.run.root is not None
    for number in range(10, 210):
        bench.send(bench_step(number, "end", 0.0, 0.3, parent=f"{2:016x}"), 0.3)
    bench.run.steps = counted = _CountedSteps(bench.run.steps)
    for number in range(210, 310):
        bench.send(bench_step(number, "end", 0.0, 0.4, parent=f"{2:016x}"), 0.4)
    # A handful of each record, however many steps the run has.
    assert len(counted) == 302
    assert counted.gets < 100 * 20


def test_a_run_in_progress_is_checked_once_after_each_record() -> None:
    """Not with every batch until it closes: each check visits all of its steps."""
    bench = Bench()
    bench.send(bench_step(4, "end", 0.0, 0.1), 0.1)
    bench.send(bench_step(5, "end", 0.0, 0.2, parent_unknown=True), 0.2)
    assert presumed_over_at(bench.run, AssembleLimits()) < NEVER_US
    assert not bench.run.presume_over()
    assert presumed_over_at(bench.run, AssembleLimits()) == NEVER_US
    bench.send(bench_step(6, "end", 0.0, 0.3), 0.3)
    assert presumed_over_at(bench.run, AssembleLimits()) < NEVER_US


SECRET = "sk-" + "proj-" + "a1B2" * 10


def test_contents_that_come_after_their_step_reach_the_detectors_once() -> None:
    """The step counts once; a repeated record, and one after a restart, add nothing."""
    bench = Bench(policy({"rule": "sensitive_data"}))
    bench.send(root("start", 0.0), 0.0)
    used = {"input_tokens": 100, "output_tokens": 10}
    first = bench_step(2, "end", 0.1, 1.0, kind="llm_call", model="gpt-4o", usage=used)
    bench.send(first, 1.0)
    assert not bench.findings()
    amended = first | {"amends": True, "output": f"the key is {SECRET}"}
    for at_s in (1.5, 2.0):
        bench.send(amended, at_s)
        assert len(bench.findings()) == 1
    bench.send(root("end", 0.0, 3.0), 3.0)
    bench.wait(10.0)
    found = bench.values("trajectories")[-1]
    assert found["closed"]
    assert (found["steps"], found["llm_calls"], found["input_tokens"]) == (2, 1, 100)


def test_an_amended_step_that_comes_first_is_the_step() -> None:
    """The gateway may have both under way at once."""
    one = call(2, 1)
    found = final([step(1), one | {"amends": True, "output": "x"}, one], 0)
    assert (found["steps"], found["llm_calls"], found["input_tokens"]) == (2, 1, 100)
