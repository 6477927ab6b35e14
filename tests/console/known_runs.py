"""The runs that the pages show, made with the SDK: six good ones, one that loops and fails, and
one that loops and goes on; and two releases of their agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stepstream.evals.gate.policy import GatePolicy
from stepstream.evals.gate.trials import RESULTS_VERSION, Header, Results, Trial, results_of
from stepstream.evals.gate.verdict import gate
from stepstream.releases.topic import publish
from stepstream.suites.publish import publish_verdict
from tests.console.world import World
from tests.support.release_folder import built

POLICY = "Parcels take three days. A refund is paid within thirty days of the delivery."


@dataclass(frozen=True)
class KnownRuns:
    """Their trace ids, and the alert that fires about the one that goes on."""

    good: list[str]
    failed: str
    looping: str
    alert: str
    verdict: str


def _takes(ms: float) -> None:
    """Let a step last so long: the pages show times and their bars."""
    time.sleep(ms / 1_000)


def _good(run: Any, number: int) -> None:
    with run.llm("plan", model="gpt-4o", provider="openai", input="Where is order 7?") as plan:
        _takes(24)
        plan.set_output(f"look_up(order={number})")
        plan.set_usage(input_tokens=900 + 40 * number, output_tokens=40)
    with run.tool("look_up", input={"order": number}) as tool:
        _takes(9)
        tool.set_output({"order": number, "state": "shipped"})
    with run.retrieval("policies", input="delivery") as found:
        _takes(5)
        found.set_documents([{"id": "p-3", "score": 0.8, "content": POLICY}])
    with run.llm("answer", model="gpt-4o", provider="openai", input=POLICY) as answer:
        _takes(30)
        answer.set_output("It is on its way.")
        answer.set_usage(input_tokens=1_400, output_tokens=90)
    run.set_output("It is on its way.")


def _failed(run: Any) -> None:
    with run.llm("plan", model="gpt-4o", provider="openai", input="Refund order 8") as plan:
        _takes(26)
        plan.set_output("look_up(order=8)")
        plan.set_usage(input_tokens=1_200, output_tokens=60)
    for attempt in range(1, 4):
        with run.tool("look_up", input={"order": 8}, attempt=attempt) as tool:
            _takes(40)
            tool.set_error("no answer within 40 ms", error_type="TimeoutError")
    for _ in range(12):
        with run.llm("plan again", model="gpt-4o", provider="openai", input="Refund") as plan:
            _takes(28)
            plan.set_output("search(refund order 8)")
            plan.set_usage(input_tokens=9_000, output_tokens=300)
        with run.tool("search", input={"q": "refund order 8"}) as tool:
            _takes(7)
            tool.set_output("nothing found")
    with run.tool("refund", input={"order": 8}) as tool:
        _takes(12)
        tool.set_error("no such order", error_type="PaymentError")
    run.set_error("the refund was refused", error_type="PaymentError")


def loop(run: Any) -> None:
    """Call a tool with the same input until the detector finds it."""
    for _ in range(12):
        with run.tool("search", input={"q": "the same"}) as tool:
            tool.set_output("nothing found")


CASES = 24


def results(agent: str, runs: list[str], lost: int) -> Results:
    """Two trials of each case; of the first ``lost`` cases the second one fails."""
    trials = [
        Trial(
            f"case-{number:02}",
            trial,
            success=not (trial and number < lost),
            reason="the answer has no number 15" if trial and number < lost else "",
            cost_usd=0.01 + number / 10_000,
            latency_s=1.5,
            tokens=900.0,
            tool_errors=0.0,
            # Two trials have runs that can be opened.
            trace_id=runs[trial] if number == 3 else "",
        )
        for number in range(CASES)
        for trial in range(2)
    ]
    return results_of(agent, trials, Header(RESULTS_VERSION, "refunds", "4f1d", agent))


def published_verdict(world: World, good: list[str]) -> str:
    sides = results("support:v12", good[:2], 0), results("support:v13", good[2:4], 10)
    policy = GatePolicy()
    return publish_verdict(
        world.settings, gate(*sides, policy), *sides, policy, time.time_ns() // 1_000
    )


@contextmanager
def made(world: World) -> Iterator[KnownRuns]:
    """Make them, and wait until they and the alert are in the store."""
    for version in ("v12", "v13"):
        publish(world.settings, built(world.folder / version, version))
    tracer = world.tracer()
    good = []
    for number in range(6):
        with tracer.run(task="refund", user_id=f"u{number}", session_id="s-1", input="?") as run:
            _good(run, number)
        good.append(run.trace_id)
    with tracer.run(task="refund", user_id="u9", session_id="s-2", input="Refund order 8") as run:
        _failed(run)
    # Its alert fires as long as the run goes on.
    with tracer.run(task="search", input="Find order 9") as looping:
        loop(looping)
        assert tracer.flush(120)
        for trace_id in (*good, run.trace_id):
            world.closed(trace_id)
        alert = world.alert_of(looping.trace_id)
        verdict = published_verdict(world, good)
        yield KnownRuns(good, run.trace_id, looping.trace_id, alert, verdict)
    tracer.close(30)
