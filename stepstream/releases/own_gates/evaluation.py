"""The gate ``evaluation``: results of a suite, the candidate's compared with those of the label.

``stepstream eval run`` writes them: ``eval-results/AGENT/VERSION.jsonl`` below the current folder,
and ``eval-results/AGENT/gate.yaml`` may have a policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from stepstream.evals.gate.output import side_text
from stepstream.evals.gate.policy import GatePolicy, policy_of
from stepstream.evals.gate.trials import Results, ResultsError, parse_results
from stepstream.evals.gate.verdict import gate
from stepstream.releases.gates import GATES, GateRequest, Verdict
from stepstream.schemas.release import Release

FOLDER: Final = Path("eval-results")


@GATES.register("evaluation")
class EvaluationGate:
    """Decides with the results of both releases, as ``stepstream eval gate`` does."""

    def check(self, request: GateRequest) -> Verdict:
        """Pass, fail or inconclusive; inconclusive where results are missing."""
        baseline = request.baseline
        if baseline is None:
            return _inconclusive(
                f"{request.label} names no release, so there is nothing to compare with"
            )
        try:
            found = gate(_results(baseline), _results(request.candidate), _policy(baseline))
        except (ResultsError, OSError, ValueError, yaml.YAMLError) as error:
            return _inconclusive(str(error))
        sides = f"{side_text(found.baseline)}; {side_text(found.candidate)}"
        detail = f"{'; '.join(found.reasons)} ({sides})"
        return Verdict(gate="evaluation", outcome=found.outcome, detail=detail)


def _inconclusive(detail: str) -> Verdict:
    return Verdict(gate="evaluation", outcome="inconclusive", detail=detail)


def _results(release: Release) -> Results:
    file = FOLDER / release.agent / f"{release.version}.jsonl"
    if not file.exists():
        raise ResultsError(
            f"no results of {release.title}: stepstream eval run SUITE --agent module:function "
            f"-o {file}"
        )
    return parse_results(release.title, file.read_text(encoding="utf-8"))


def _policy(release: Release) -> GatePolicy:
    file = FOLDER / release.agent / "gate.yaml"
    return policy_of(yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {})
