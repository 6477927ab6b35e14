"""The step events of a scenario, in the order of their times. Pure.

Equal seeds and starts give equal events.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from stepstream.schemas.times import HOUR_US, MINUTE_US, SECOND_US
from stepstream.simulate.scenario import (
    Agent,
    CostBlowup,
    Fault,
    HungStep,
    LoopFault,
    Scenario,
    SilentError,
    ToolTimeout,
    TrafficSpike,
    TrafficStop,
    VersionRegression,
)

FAULT_ATTRIBUTE: Final = "simulated.fault"
"""The attribute of a root step that names the fault of its run."""
BURST: Final = 10
GOES_ON: Final = "goes on"
ANSWERS: Final = "answers"
HANGS: Final = "hangs"
"""What a run does after a fault: further calls, its answer without another try, or nothing."""
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """A step event, when it happens, and the faults of its run."""

    at_us: int
    event: Event
    faults: tuple[str, ...]


@dataclass
class _Run:
    """A run while it is made up."""

    agent: Agent
    draw: random.Random
    now_us: int
    shared: Event
    root_id: str
    faults: dict[str, Fault] = field(default_factory=dict)
    events: list[tuple[int, Event]] = field(default_factory=list)
    steps: int = 1
    pace: float = 1.0
    """The factor of all durations."""


def events(scenario: Scenario, start_us: int, *, speed: float = 1.0) -> Iterator[Timed]:
    """The events of all runs. At another speed all times are divided by it."""
    waiting: list[tuple[int, int, Timed]] = []
    number = count()
    for begins_us, agent, draw, index in _beginnings(scenario):
        # Later runs have no earlier events: what is waiting up to here is in its final order.
        while waiting and waiting[0][0] <= begins_us:
            yield heapq.heappop(waiting)[2]
        salt = f"{scenario.name}|{scenario.seed}|{start_us}|{agent.agent}|{index}"
        run = _run(scenario, agent, draw, begins_us, salt)
        for at_us, event in run.events:
            timed = Timed(start_us + int(at_us / speed), event, tuple(run.faults))
            _shift(event, start_us, speed)
            # The number keeps events of the same time in the order of their making: ``Timed`` has
            # no order, and a heap is not stable.
            heapq.heappush(waiting, (at_us, next(number), timed))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _shift(event: Event, start_us: int, speed: float) -> None:
    for name in ("start_time", "end_time"):
        if name in event:
            event[name] = start_us + int(event[name] / speed)


def _beginnings(scenario: Scenario) -> Iterator[tuple[int, Agent, random.Random, int]]:
    """When each run begins, in order, with a source of chance of its own."""
    streams = [_arrivals(scenario, agent, place) for place, agent in enumerate(scenario.agents)]
    merged = heapq.merge(*streams, key=lambda one: (one[0], one[2]))
    for begins_us, agent, place, index in merged:
        # One source of chance per run: a run does not change when another one draws more often.
        yield begins_us, agent, random.Random(f"{scenario.seed}|{place}|{index}"), index


def _arrivals(
    scenario: Scenario, agent: Agent, place: int
) -> Iterator[tuple[int, Agent, int, int]]:
    draw = random.Random(f"{scenario.seed}|{place}")
    index, at_us = 0, 0.0
    # Thinning (Lewis and Shedler 1979): runs at the highest rate, of which some are left out.
    # No shape of traffic has more than twice its mean.
    highest = 2 * scenario.highest_spike(agent) * agent.runs_per_minute
    size = BURST if agent.traffic == "bursts" else 1
    while True:
        at_us += draw.expovariate(highest / size) * MINUTE_US
        if at_us >= scenario.duration:
            return
        if draw.random() * highest < _rate(scenario, agent, at_us):
            for _ in range(size):
                index += 1
                yield int(at_us), agent, place, index


def _rate(scenario: Scenario, agent: Agent, at_us: float) -> float:
    """Runs a minute at a moment."""
    rate = agent.runs_per_minute * scenario.spike(agent, at_us)
    if agent.traffic == "ramp":
        rate *= 2 * at_us / scenario.duration
    elif agent.traffic == "daily":
        rate *= 1 - math.cos(2 * math.pi * at_us / (24 * HOUR_US))
    stops = (fault for fault in scenario.faults if isinstance(fault, TrafficStop))
    return 0.0 if any(scenario.applies(stop, agent, at_us) for stop in stops) else rate


def _run(scenario: Scenario, agent: Agent, draw: random.Random, at_us: int, salt: str) -> _Run:
    version = _version(agent, draw, at_us)
    digest = hashlib.blake2b(salt.encode(), digest_size=16).hexdigest()
    shared: Event = {
        "trace_id": digest,
        "project": agent.project,
        "environment": agent.environment,
        "agent": agent.agent,
        "agent_version": version,
        "task": agent.task,
    }
    if agent.users:
        shared["user_id"] = f"user-{draw.randrange(agent.users)}"
    run = _Run(agent, draw, at_us, shared, f"{1:016x}")
    for fault in scenario.faults:
        # Drawn before the conditions: a fault that does not apply changes no later draw of the run.
        chosen = draw.random() < fault.share
        if isinstance(fault, TrafficSpike | TrafficStop):
            continue
        if isinstance(fault, VersionRegression) and fault.version != version:
            continue
        if chosen and scenario.applies(fault, agent, at_us):
            # Of two faults of the same kind the first one of the document counts.
            run.faults.setdefault(fault.fault, fault)
    _fill(run)
    return run


def _version(agent: Agent, draw: random.Random, at_us: int) -> str:
    chosen = ""
    for one in agent.versions:
        # Drawn for each version, so that a version that begins later changes no earlier run.
        takes_part = draw.random() < one.share
        if one.begins <= at_us and (takes_part or not chosen):
            chosen = one.version
    return chosen


def _fill(run: _Run) -> None:
    """The events of the run."""
    agent, draw = run.agent, run.draw
    worse = run.faults.get("version_regression")
    error_rate = agent.error_rate
    if isinstance(worse, VersionRegression):
        run.pace, error_rate = worse.duration_factor, max(error_rate, worse.error_rate)
    failed = draw.random() < error_rate
    start_us = run.now_us
    root: Event = {**run.shared, "step_id": run.root_id, "kind": "agent", "name": agent.agent}
    if run.faults:
        root["attributes"] = {FAULT_ATTRIBUTE: ",".join(run.faults)}
    question = f"request {run.shared['trace_id'][:12]} about {_words(draw, 4)}"
    run.events.append(
        (start_us, {**root, "phase": "start", "start_time": start_us, "input": question})
    )
    calls = draw.randint(agent.least_calls, agent.most_calls)
    # Early in some runs and late in others: detectors must not depend on the position.
    faulty = draw.randrange(calls)
    for number in range(calls):
        _model_call(run, question)
        after = _faulty_call(run) if number == faulty else GOES_ON
        if after == HANGS:
            return
        if after == ANSWERS:
            break
        _tool_call(run, draw.choice(agent.tools))
    _model_call(run, question, answers=True)
    end: Event = {**root, "phase": "end", "start_time": start_us, "end_time": run.now_us}
    end |= {"input": question, "status": "error" if failed else "ok"}
    if failed:
        end |= {"error_type": "RequestFailed", "error_message": "the request was not completed"}
    else:
        end["output"] = f"answer to {question}"
    run.events.append((run.now_us, end))


def _model_call(run: _Run, question: str, *, answers: bool = False) -> None:
    draw, agent = run.draw, run.agent
    # Costs and durations of calls are skewed: log-normal, with the scenario's value as the median.
    cost = float(agent.cost_usd) * draw.lognormvariate(0, 0.3)
    blowup, worse = run.faults.get("cost_blowup"), run.faults.get("version_regression")
    if isinstance(blowup, CostBlowup):
        cost *= blowup.factor
    if isinstance(worse, VersionRegression):
        cost *= worse.cost_factor
    # 20 dollars per million tokens, so that rules about tokens find what rules about cost find.
    tokens = max(1, int(cost * 50_000))
    end = {
        "output": f"{'Done' if answers else 'next'}: {_words(draw, 6)}",
        "cost_usd": f"{cost:.9f}",
        "usage": {"input_tokens": tokens, "output_tokens": tokens // 8},
    }
    prompt = f"{question}; so far: {_words(draw, 8)}"
    _step(run, "llm_call", agent.model, {"model": agent.model}, prompt, end)


def _tool_call(run: _Run, tool: str, *, given: str = "", **more: Any) -> None:
    words = _words(run.draw, 3)
    # A page number, because two calls of a run with the same words would be a repetition.
    text = given or json.dumps({"query": words, "page": run.draw.randrange(10_000)})
    end = {"output": f"result: {_words(run.draw, 8)}"} | more
    _step(run, "tool_call", tool, {"tool": tool}, text, end)


def _faulty_call(run: _Run) -> str:
    """The tool calls of the run's faults. Returns what the run does after them."""
    tool, after = run.draw.choice(run.agent.tools), GOES_ON
    for fault in run.faults.values():
        if isinstance(fault, LoopFault):
            given, answer = f'{{"query": "{_words(run.draw, 3)}"}}', _words(run.draw, 6)
            for _ in range(fault.repeats):
                _tool_call(run, tool, given=given, output=answer)
        elif isinstance(fault, SilentError):
            _tool_call(run, tool, output='{"error": "permission denied", "code": 403}')
            after = ANSWERS
        elif isinstance(fault, ToolTimeout):
            _timeout(run, fault, fault.tool or tool)
            after = after if fault.retried else ANSWERS
        elif isinstance(fault, HungStep):
            _step(run, "tool_call", tool, {"tool": tool}, _words(run.draw, 3), None)
            return HANGS
    return after


def _timeout(run: _Run, fault: ToolTimeout, tool: str) -> None:
    given = json.dumps({"query": _words(run.draw, 3)})
    failed = {"status": "error", "error_type": "TimeoutError", "error_message": "no answer"}
    end = {**failed, "output": ""}
    _step(run, "tool_call", tool, {"tool": tool}, given, end, takes_us=fault.takes)
    if fault.retried:
        _tool_call(run, tool, given=given)


def _step(
    run: _Run,
    kind: str,
    name: str,
    more: Event,
    given: str,
    end: Event | None,
    *,
    takes_us: int = 0,
) -> None:
    """A step of the run; without ``end`` it does not end."""
    run.steps += 1
    base: Event = {**run.shared, "step_id": f"{run.steps:016x}", "parent_step_id": run.root_id}
    base |= {"kind": kind, "name": name, **more, "start_time": run.now_us, "input": given}
    run.events.append((run.now_us, {**base, "phase": "start"}))
    if end is None:
        return
    took = takes_us or run.agent.step_takes * run.draw.lognormvariate(0, 0.4) * run.pace
    run.now_us += max(1_000, int(took))
    event = {**base, "phase": "end", "end_time": run.now_us, "status": "ok", **end}
    run.events.append((run.now_us, event))
    # The agent's own time until its next step.
    run.now_us += SECOND_US // 50


_WORDS: Final = (
    "order", "parcel", "invoice", "account", "address", "refund", "delivery", "price", "stock",
    "size", "colour", "shop", "branch", "voucher", "card", "receipt", "label", "box", "shelf",
    "supplier", "contract", "season", "catalogue", "garden", "kitchen", "lamp", "table", "chair",
    "paper", "pencil", "window", "engine", "wheel", "bottle", "basket", "ticket", "station",
)  # fmt: skip


def _words(draw: random.Random, number: int) -> str:
    return f"{' '.join(draw.choices(_WORDS, k=number))} {draw.randrange(10**6)}"
