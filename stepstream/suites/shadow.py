"""A candidate on the inputs of production runs, compared with what production did."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from stepstream.backtest.score import score_stored
from stepstream.backtest.store import Scope
from stepstream.evals.cases import Case, Suite
from stepstream.evals.from_runs import RunLost, input_of
from stepstream.evals.gate.sequence import Comparison, compare
from stepstream.evals.gate.trials import RESULTS_VERSION, Header, Results, Trial, results_of
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.ids import derived_id
from stepstream.schemas.recording import RecordingError
from stepstream.schemas.times import DAY_US
from stepstream.schemas.trajectory import TrajectoryStruct
from stepstream.suites.replay import find_recording, read_recording
from stepstream.suites.runner import Plan, run_suite
from stepstream.suites.trial import Serving
from stepstream.testing.replay import Rules

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_ROOTS: Final = (
    "SELECT trace_id, input, input_bytes FROM steps WHERE parent_step_id = '' "
    "AND trace_id IN {ids:Array(String)}"
)
_OUTCOMES: Final = {"true": True, "false": False}


class ShadowError(ValueError):
    """Nothing can be compared, or it may cost money that no limit was given for."""


@dataclass(frozen=True)
class ShadowPlan:
    """Which runs, and how the candidate is run on their inputs."""

    share: float
    max_usd: float | None
    recordings: str
    """The folder of recordings that tools are served from; empty: tools are called."""
    run: Plan


@dataclass
class Shadowed:
    """The results of both sides; a case is a session, whose runs depend on each other."""

    production: Results
    candidate: Results
    left_out: Counter[str] = field(default_factory=Counter)
    about: TrajectoryStruct | None = None
    """A run of production: whose they are."""

    def compared(self) -> Comparison:
        return compare(self.production, self.candidate)


def shadow(
    client: Client,
    scope: Scope,
    documents: Sequence[Criteria],
    agent: Callable[[Any], Any],
    name: str,
    plan: ShadowPlan,
) -> Shadowed:
    """Run the candidate. Raises ``ShadowError``, and ``clickhouse_connect``'s errors."""
    runs = sampled(score_stored(client, scope, documents).values(), plan.share)
    if not runs:
        raise ShadowError("no closed run of the sample matches the Criteria")
    if plan.max_usd is None and any(run.cost_usd for run in runs):
        raise ShadowError(
            "the runs of the sample cost money, and so may the candidate: give a limit, --max-usd"
        )
    rows = client.query(_ROOTS, parameters={"ids": [run.trace_id for run in runs]})
    left_out: Counter[str] = Counter()
    cases, serving = _cases(runs, list(rows.named_results()), plan, left_out)
    if not cases:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in left_out.items())
        raise ShadowError(f"no run of the sample can be repeated: {reasons}")
    suite = Suite("shadow", cases, hashlib.sha256(name.encode()).hexdigest()[:12])
    given = replace(plan.run, serving=serving, max_usd=plan.max_usd)
    done = run_suite(suite, agent, name, documents, given).results
    made = {case: trials[0] for case, trials in done.cases.items()}
    stopped = len(cases) - len(made)
    if stopped:
        left_out["the limit --max-usd was reached"] += stopped
    found = _paired([run for run in runs if run.trace_id in made], made, name, left_out)
    found.about = runs[0]
    return found


def finding_of(found: Shadowed, now_us: int) -> FindingStruct | None:
    """The finding that opens the alert ``shadow_worse``; None where nothing is shown.

    One for a candidate and day, however often it is evaluated.
    """
    seen, about = found.compared(), found.about
    if about is None or not seen.is_worse:
        return None
    before, after, name = seen.production, seen.candidate, found.candidate.header.agent
    day = now_us // DAY_US
    return FindingStruct(
        finding_id=derived_id(
            "shadow-worse", about.project, about.environment, about.agent, name, day
        ),
        time=now_us,
        project=about.project,
        environment=about.environment,
        agent=about.agent,
        alert="shadow_worse",
        rule="shadow_worse",
        severity="error",
        subject=name,
        message=f"{name} succeeds in {100 * after.rate:.1f} % of {after.runs} runs on production's "
        f"inputs; production did in {100 * before.rate:.1f} % of {before.runs}",
        detail=f"{after.sessions} sessions; the difference is below {100 * seen.upper:.1f} points",
        value=after.rate,
        threshold=before.rate,
        unit="ratio",
        baseline=before.rate,
        baseline_runs=before.runs,
    )


def sampled(runs: Iterable[TrajectoryStruct], share: float) -> list[TrajectoryStruct]:
    """A share of the runs, by a hash of their ids: the same in each call."""
    return [
        run
        for run in runs
        if int(hashlib.sha256(run.trace_id.encode()).hexdigest()[:16], 16) < share * 2**64
    ]


def _cases(
    runs: Sequence[TrajectoryStruct],
    roots: Sequence[Mapping[str, Any]],
    plan: ShadowPlan,
    left_out: Counter[str],
) -> tuple[list[Case], dict[str, Serving]]:
    by_id = {row["trace_id"]: row for row in roots}
    cases, serving = [], {}
    for run in runs:
        root = by_id.get(run.trace_id)
        try:
            given = input_of(run.trace_id, root)
            if plan.recordings:
                recording = read_recording(find_recording(plan.recordings, run.trace_id))
                serving[run.trace_id] = Serving(recording, Rules(live=frozenset({"models"})))
        except RunLost:
            left_out["the input is not recorded whole"] += 1
            continue
        except RecordingError:
            left_out["its calls are not recorded"] += 1
            continue
        cases.append(Case(id=run.trace_id, input=given))
    return cases, serving


def _paired(
    runs: Sequence[TrajectoryStruct],
    made: Mapping[str, Trial],
    name: str,
    left_out: Counter[str],
) -> Shadowed:
    numbers: Counter[str] = Counter()
    sides: tuple[list[Trial], list[Trial]] = ([], [])
    for run in runs:
        session = run.session_id or run.trace_id
        number = numbers[session]
        numbers[session] += 1
        for side, trial in zip(sides, (_trial_of(run), made[run.trace_id]), strict=True):
            values = {field: getattr(trial, field) for field in trial.__struct_fields__}
            side.append(Trial(**(values | {"case": session, "trial": number})))
    production, candidate = (
        results_of(label, found, Header(RESULTS_VERSION, "shadow", "", label))
        for label, found in zip(("production", name), sides, strict=True)
    )
    return Shadowed(production, candidate, left_out)


def _trial_of(run: TrajectoryStruct) -> Trial:
    """What production did. Without its time: one of the store and one of a test differ anyway."""
    return Trial(
        run.trace_id,
        0,
        success=_OUTCOMES.get(run.success),
        reason=run.success_reason,
        cost_usd=None if run.unpriced_steps else float(run.cost_usd),
        tokens=float(run.input_tokens + run.output_tokens),
        tool_errors=float(run.error_steps),
        trace_id=run.trace_id,
    )
