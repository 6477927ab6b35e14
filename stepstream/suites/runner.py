"""Runs the trials of a suite, several at the same time, and scores each recorded run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

from stepstream.backtest.history import Event
from stepstream.backtest.score import score
from stepstream.evals.cases import Case, Suite
from stepstream.evals.gate.trials import RESULTS_VERSION, Grade, Header, Results, Trial, results_of
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.trajectory import TrajectoryStruct
from stepstream.suites.agent import load_agent
from stepstream.suites.outside_checks import combined, graded, inside_only, load, outside_of
from stepstream.suites.trial import Recording, Serving, perform

_SUCCESS: Final = {"true": True, "false": False}
POLL_S: Final = 0.5


@dataclass(frozen=True)
class Plan:
    """How a suite is run."""

    trials: int = 1
    parallel: int = 2
    timeout_s: float = 60.0
    seed: int = 0
    recordings: str = ""
    """The folder in which the calls of each run are recorded; empty: they are not."""
    serving: Mapping[str, Serving] = field(default_factory=dict)
    """Recordings from which the calls of cases are served, by the case's id."""
    max_usd: float | None = None
    """No trial begins once the ended ones have cost as much."""


@dataclass
class Done:
    """The results of a suite, and the step events of its runs."""

    results: Results
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Version:
    """A version of an agent, under the name that its results have."""

    name: str
    agent: Callable[[Any], Any]


@dataclass
class Running:
    """A trial that is going on."""

    case: Case
    number: int
    process: Any
    ends_at: float
    result: Path
    side: int = 0
    """The place of its version among those that run in turns."""


def check(suite: Suite, criteria: Sequence[Criteria]) -> None:
    """Raises ``AgentError`` for a user, grader or function that cannot be loaded."""
    for case in suite.cases:
        if case.user:
            load_agent(case.user)
        for one in outside_of([*criteria, *filter(None, [case.criteria()])]):
            load(one)


def run_suite(
    suite: Suite,
    agent: Callable[[Any], Any],
    name: str,
    criteria: Sequence[Criteria],
    plan: Plan,
) -> Done:
    """Run every trial. ``name`` is that of the agent, for the results.

    Raises ``AgentError``, as ``check`` does.
    """
    (done,) = _run(suite, [Version(name, agent)], criteria, plan, (plan.trials,), _never)
    return done


def run_pair(
    suite: Suite,
    sides: tuple[Version, Version],
    criteria: Sequence[Criteria],
    plan: Plan,
    rounds: tuple[int, ...],
    is_decided: Callable[[Results, Results], bool],
) -> tuple[Done, Done]:
    """Run the trials of a baseline and a candidate in turns, round by round, until ``is_decided``.

    ``rounds`` are numbers of trials; the results of both sides name them as their plan. Raises
    ``AgentError``, as ``check`` does.
    """

    def after_round(done: Sequence[Results]) -> bool:
        return is_decided(done[0], done[1])

    first, second = _run(suite, sides, criteria, plan, rounds, after_round)
    return first, second


def _never(_done: Sequence[Results]) -> bool:
    return False


def _run(
    suite: Suite,
    versions: Sequence[Version],
    criteria: Sequence[Criteria],
    plan: Plan,
    rounds: tuple[int, ...],
    is_decided: Callable[[Sequence[Results]], bool],
) -> list[Done]:
    check(suite, criteria)
    trials: list[list[Trial]] = [[] for _ in versions]
    events: list[list[dict[str, Any]]] = [[] for _ in versions]
    order = {case.id: place for place, case in enumerate(suite.cases)}

    def may_begin() -> bool:
        spent = sum(trial.cost_usd or 0.0 for side in trials for trial in side)
        return plan.max_usd is None or spent < plan.max_usd

    def results() -> list[Results]:
        planned = rounds if len(rounds) > 1 else ()
        for side in trials:
            side.sort(key=lambda trial: (order[trial.case], trial.trial))
        return [
            results_of(
                version.name,
                side,
                Header(
                    RESULTS_VERSION, Path(suite.name).stem, suite.version, version.name, planned
                ),
            )
            for version, side in zip(versions, trials, strict=True)
        ]

    with tempfile.TemporaryDirectory(prefix="stepstream-eval-") as folder:
        done = 0
        for until in rounds:
            numbers = range(done, until)
            for one, recorded in _recorded(suite, versions, plan, Path(folder), may_begin, numbers):
                divergence = recorded.get("replay", {}).get("divergence")
                if divergence:
                    # A call that nothing could answer is the limit of the recording.
                    stopped = Trial(one.case.id, one.number, reason=f"stopped: {divergence}")
                    trials[one.side].append(stopped)
                    continue
                trials[one.side].append(scored(one.case, one.number, recorded, criteria))
                found = recorded.get("events", ())
                events[one.side] += _named(found, suite, one.case, one.number)
            done = until
            if until != rounds[-1] and (not may_begin() or is_decided(results())):
                break
    return [Done(made, sent) for made, sent in zip(results(), events, strict=True)]


def _named(
    events: Sequence[dict[str, Any]], suite: Suite, case: Case, number: int
) -> Iterator[dict[str, Any]]:
    """The events; roots carry which trial they are, for queries."""
    names = {"experiment": Path(suite.name).stem, "case": case.id, "trial": str(number)}
    for event in events:
        if event.get("parent_step_id"):
            yield event
        else:
            yield {**event, "attributes": {**(event.get("attributes") or {}), **names}}


def _recorded(
    suite: Suite,
    versions: Sequence[Version],
    plan: Plan,
    folder: Path,
    may_begin: Callable[[], bool],
    numbers: range,
) -> Iterator[tuple[Running, dict[str, Any]]]:
    # The trials of a round before those of the next, and the versions in turns: a provider's bad
    # minute meets every case and both sides.
    waiting = [
        (side, place, case, number)
        for number in numbers
        for place, case in enumerate(suite.cases)
        for side in _turn(len(versions), place + number)
    ]
    waiting.reverse()
    # Forked, so that the agent and the SDK are imported once: a new interpreter takes 0.5 s.
    context = multiprocessing.get_context("fork")
    running: list[Running] = []
    try:
        while waiting or running:
            if not may_begin():
                waiting.clear()
            while waiting and len(running) < plan.parallel:
                side, place, case, number = waiting.pop()
                result = folder / f"{side}-{place}-{number}.json"
                agent = versions[side].agent
                running.append(_start(context, agent, case, number, plan, result, side=side))
            wait([one.process.sentinel for one in running], POLL_S)
            for one in [*running]:
                is_late = time.monotonic() > one.ends_at
                if one.process.is_alive() and not is_late:
                    continue
                running.remove(one)
                yield one, ended(one, plan.timeout_s, is_late)
    finally:
        for one in running:
            _end(one)


def _turn(versions: int, turn: int) -> list[int]:
    """The order of the versions: each begins as often as the others."""
    return [(side + turn) % versions for side in range(versions)]


def _start(
    context: Any,
    agent: Callable[[Any], Any],
    case: Case,
    number: int,
    plan: Plan,
    result: Path,
    *,
    side: int,
) -> Running:
    # The same seed for a case and trial, whatever else runs: results can be repeated.
    seed = hash_of(case.id, number, plan.seed)
    user = load_agent(case.user) if case.user else None
    how = plan.serving.get(case.id) or Recording(plan.recordings, case, user)
    args = (agent, case.input, seed, result, how)
    process = context.Process(target=perform, args=args)
    process.start()
    return Running(case, number, process, time.monotonic() + plan.timeout_s, result, side)


def hash_of(case: str, trial: int, seed: int) -> int:
    """A number that depends on these alone."""
    return zlib.crc32(f"{seed}/{case}/{trial}".encode())


def ended(one: Running, timeout_s: float, is_late: bool) -> dict[str, Any]:
    """End a trial's processes. Returns what it wrote, or why it wrote nothing."""
    code = None if is_late else one.process.exitcode
    _end(one)
    if one.result.exists():
        found: dict[str, Any] = json.loads(one.result.read_text(encoding="utf-8"))
        return found
    if is_late:
        return {"error": f"not ended after {timeout_s:g} s"}
    return {"error": f"its process ended with code {code}"}


def _end(one: Running) -> None:
    """End the child and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(one.process.pid, signal.SIGKILL)
    if one.process.is_alive():
        one.process.kill()
    one.process.join()


def scored(
    case: Case, number: int, recorded: dict[str, Any], criteria: Sequence[Criteria]
) -> Trial:
    """The trial, from what its process wrote, by the documents and the case's own checks."""
    of_case = case.criteria()
    documents = [*criteria, of_case] if of_case is not None else [*criteria]
    events = [
        Event(
            event.get("end_time") or event["start_time"],
            event["trace_id"],
            json.dumps(event).encode(),
        )
        for event in recorded.get("events", ())
    ]
    events.sort(key=lambda event: event.at_us)
    scored = score(events, inside_only(documents))
    error = recorded.get("error", "")
    run: TrajectoryStruct | None = scored.get(events[0].trace_id) if events else None
    if run is None:
        return Trial(
            case.id,
            number,
            reason=error or "its run has not ended, or no document matches it",
            crashed=bool(error),
        )
    grades = () if error else _graded(case, run, recorded, documents)
    success, reason = combined(_SUCCESS.get(run.success), run.success_reason, grades)
    unpriced = run.unpriced_steps > 0
    return Trial(
        case.id,
        number,
        success=success,
        reason=error or reason,
        cost_usd=None if unpriced else float(run.cost_usd),
        latency_s=round(recorded["latency_s"], 6),
        tokens=float(run.input_tokens + run.output_tokens),
        tool_errors=float(run.error_steps),
        trace_id=run.trace_id,
        crashed=bool(error),
        grades=grades,
    )


def _graded(
    case: Case,
    run: TrajectoryStruct,
    recorded: dict[str, Any],
    documents: Sequence[Criteria],
) -> tuple[Grade, ...]:
    """What graders and functions of the documents that match the run return about it."""
    matching = [
        one
        for one in documents
        if one.match.matches(
            project=run.project,
            environment=run.environment,
            agent=run.agent,
            agent_version=run.agent_version,
            task=run.task,
        )
    ]
    checks = outside_of(matching)
    if not checks:
        return ()
    steps = [event for event in recorded["events"] if event["phase"] == "end"]
    root: dict[str, Any] = next((one for one in steps if not one.get("parent_step_id")), {})
    answer = str(root.get("output") or "")
    return tuple(graded(check, case.input, answer, steps) for check in checks)
