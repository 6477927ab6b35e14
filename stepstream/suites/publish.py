"""Results and verdicts as rows of the store, for SQL and for the console's page ``/evals``."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import msgspec

from stepstream.evals.gate.output import as_json
from stepstream.evals.gate.policy import GatePolicy
from stepstream.evals.gate.trials import Results, Trial, lines_of
from stepstream.evals.gate.verdict import Verdict
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.evaluations import insert_results, insert_verdict

_SUCCESS: Final = {True: "true", False: "false", None: "unknown"}
ID_DIGITS: Final = 16


def results_id(results: Results) -> str:
    """The id of results: a digest of their trials, so that a file has one wherever it is read."""
    return _digest("\n".join(lines_of(results)))


def publish_results(settings: Settings, results: Results, now_us: int) -> str:
    """Store the trials; returns their id. Raises as ``insert_results``."""
    own_id, header = results_id(results), results.header
    shared = {
        "results_id": own_id,
        "project": settings.project,
        "suite": header.suite,
        "suite_version": header.suite_version,
        "agent": header.agent or results.name,
        "published_at": now_us,
    }
    rows = [{**shared, **_row(trial)} for case in results.cases.values() for trial in case]
    insert_results(settings, own_id, rows)
    return own_id


def publish_verdict(
    settings: Settings,
    verdict: Verdict,
    baseline: Results,
    candidate: Results,
    policy: GatePolicy,
    now_us: int,
) -> str:
    """Store both results and the verdict about them; returns the verdict's id.

    Raises as ``insert_results``.
    """
    ids = [publish_results(settings, side, now_us) for side in (baseline, candidate)]
    plain = as_json(verdict)
    # The trials have the cases of both sides.
    del plain["pairing"]
    own_id = _digest("\n".join([*ids, policy.model_dump_json()]))
    insert_verdict(
        settings,
        {
            "verdict_id": own_id,
            "project": settings.project,
            "outcome": verdict.outcome,
            "suite": candidate.header.suite,
            "suite_version": candidate.header.suite_version,
            "baseline": baseline.header.agent or baseline.name,
            "candidate": candidate.header.agent or candidate.name,
            "baseline_id": ids[0],
            "candidate_id": ids[1],
            "cases": len(verdict.pairing.cases),
            "trials": verdict.trials,
            "reasons": list(verdict.reasons),
            "notes": list(verdict.notes),
            "verdict": json.dumps(plain),
            "published_at": now_us,
        },
    )
    return own_id


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "case_id": trial.case,
        "trial": trial.trial,
        "success": _SUCCESS[trial.outcome],
        "reason": trial.reason,
        "crashed": trial.crashed,
        "cost_usd": trial.cost_usd,
        "latency_s": trial.latency_s,
        "tokens": trial.tokens,
        "tool_errors": trial.tool_errors,
        "trace_id": trial.trace_id,
        "grades": msgspec.json.encode(trial.grades).decode() if trial.grades else "",
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]
