"""Attribution without a model: how often the suspects of a failed run contain the annotated step.

Who&When: ten-fold cross-validation, mean of several random splits, compared with always guessing
the most frequent position. TRAIL: the published weights on runs that they were not fitted on, with
the steps of all runs ranked together. ``--weights`` prints weights fitted on all conversations.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks import harness
from benchmarks.cases import MissingData, trail_gaia, who_and_when
from benchmarks.harness import Goal, Report
from stepstream.evals.blame.features import FEATURES, features
from stepstream.evals.blame.step import MAX_TEXT, BlameStep, candidates, has_coordinator
from stepstream.evals.blame.suspects import rank
from stepstream.schemas.step import StepEvent

FOLDS: Final = 10
SPLITS: Final = 20
REGULARISATION: Final = 2.0
NEWTON_STEPS: Final = 30
PRECISION: Final = 0.4
GOALS: Final = {
    "algorithm_generated": {"step": 0.42, "top three": 0.75},
    "hand_crafted": {"step": 0.19, "top three": 0.45},
}


@dataclass(frozen=True)
class Conversation:
    """A failed conversation as the ranker sees it."""

    source: str
    # An array: a row of features for each step.
    rows: Any
    speakers: tuple[str, ...]
    mistake: int
    coordinated: bool


def blame_step(event: StepEvent) -> BlameStep:
    """A recorded step as attribution reads it."""
    error = ": ".join(part for part in (event.error_type, event.error_message) if part)
    return BlameStep(
        event.step_id,
        event.name,
        event.kind,
        event.start_time,
        event.output[:MAX_TEXT],
        event.parent_step_id,
        event.status or "ok",
        error,
        event.retry_of,
    )


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Both sets of conversations, then the runs of TRAIL."""
    conversations = list(_conversations())
    if arguments.weights:
        _print_weights(conversations)
    splits = 2 if report.quick else SPLITS
    found = _cross_validated(conversations, splits, arguments.seed)
    rows = []
    for source in who_and_when.SETS:
        of = [one for one in conversations if one.source == source]
        if not of:
            continue
        shares = found[source]
        prior = _position_prior(of)
        rows.append((source, len(of), *shares.values(), prior))
        for name, share in shares.items():
            report.figures[f"{source}_{name.replace(' ', '_')}"] = share
        report.figures[f"{source}_position_prior"] = prior
        for name, goal in GOALS[source].items():
            report.goals.append(Goal(f"{source}, {name}", shares[name], goal, "", at_most=False))
    columns = (
        "conversations",
        "number",
        "step",
        "top three",
        "within one",
        "agent",
        "position prior",
    )
    report.table(f"the step that people blame, mean of {splits} splits", columns, rows)
    try:
        _trail(report)
    except MissingData as missing:
        report.notes.append(f"TRAIL was skipped: {missing}")


def _conversations() -> list[Conversation]:
    made = []
    for case in who_and_when.cases():
        steps = candidates(blame_step(event) for event in case.steps)
        if case.mistake < len(steps):
            rows, _ = features(case.steps[0].input, steps)
            speakers = tuple(step.name for step in steps)
            made.append(
                Conversation(
                    case.source, np.array(rows), speakers, case.mistake, has_coordinator(steps)
                )
            )
    return made


def fit(data: Sequence[Conversation]) -> Any:
    """Weights of a conditional logit with a ridge penalty, by Newton's method."""
    count = len(FEATURES)
    weights = np.zeros(count)
    for _ in range(NEWTON_STEPS):
        gradient = 2 * REGULARISATION * weights
        hessian = 2 * REGULARISATION * np.eye(count)
        for one in data:
            raw = one.rows @ weights
            power = np.exp(raw - raw.max())
            share = power / power.sum()
            mean = one.rows.T @ share
            gradient = gradient + mean - one.rows[one.mistake]
            hessian = hessian + (one.rows.T * share) @ one.rows - np.outer(mean, mean)
        change = np.linalg.solve(hessian, gradient)
        weights = weights - change
        if abs(change).max() < 1e-9:
            break
    return weights


def _cross_validated(
    conversations: Sequence[Conversation], splits: int, seed: int
) -> dict[str, dict[str, float]]:
    """Shares by set. Both sets share the folds; weights are fitted by form of the run."""
    found: dict[str, Counter[str]] = {source: Counter() for source in who_and_when.SETS}
    sizes = Counter(one.source for one in conversations)
    random = np.random.default_rng(seed)
    for _ in range(splits):
        fold = _folds(conversations, random)
        for number in range(FOLDS):
            chosen = [one for one, of in zip(conversations, fold, strict=True) if of != number]
            weights = {
                form: fit([o for o in chosen if o.coordinated is form]) for form in (True, False)
            }
            for one, of in zip(conversations, fold, strict=True):
                if of == number:
                    order = np.argsort(-(one.rows @ weights[one.coordinated]), kind="stable")
                    found[one.source].update(_hits(one, list(order)))
    names = ("step", "top three", "within one", "agent")
    return {
        source: {name: hits[name] / (splits * max(1, sizes[source])) for name in names}
        for source, hits in found.items()
    }


def _folds(conversations: Sequence[Conversation], random: Any) -> list[int]:
    """A fold for each conversation, random and of equal size in each set."""
    fold = [0] * len(conversations)
    for source in who_and_when.SETS:
        places = [place for place, one in enumerate(conversations) if one.source == source]
        for place, number in zip(places, random.permutation(len(places)), strict=True):
            fold[place] = int(number) % FOLDS
    return fold


def _hits(one: Conversation, order: list[int]) -> list[str]:
    first = order[0]
    hits = {
        "step": first == one.mistake,
        "top three": one.mistake in order[:3],
        "within one": abs(first - one.mistake) <= 1,
        "agent": one.speakers[first] == one.speakers[one.mistake],
    }
    return [name for name, hit in hits.items() if hit]


def _position_prior(conversations: Sequence[Conversation]) -> float:
    """Share of always guessing the most frequent position of the other conversations."""
    counted = Counter(one.mistake for one in conversations)
    hits = 0
    for one in conversations:
        others = counted - Counter([one.mistake])
        hits += bool(others) and others.most_common(1)[0][0] == one.mistake
    return hits / len(conversations)


def _trail(report: Report) -> None:
    """Recall of annotated locations where precision is at least ``PRECISION``."""
    annotated = trail_gaia.annotated_errors()
    ranked: list[tuple[float, bool]] = []
    locations = hits = suspected = runs = 0
    for run in trail_gaia.runs():
        errors = annotated.get(run[0].trace_id)
        if not errors:
            continue
        runs += 1
        wrong = {error["location"] for error in errors}
        locations += len(wrong)
        question = next((event.input for event in run if not event.parent_step_id), "")
        found = rank(question, [blame_step(event) for event in run])
        # A step's probability is relative to its run: times the number of steps it is comparable.
        ranked += [(one.probability * len(found), one.step.step_id in wrong) for one in found]
        best = sorted(found, key=lambda one: -one.probability)[:3]
        hits += sum(one.step.step_id in wrong for one in best)
        suspected += len(best)
    recall = _recall_at(sorted(ranked, reverse=True), locations)
    base = sum(is_wrong for _, is_wrong in ranked) / max(1, len(ranked))
    report.figures |= {
        "trail_recall_at_precision_0.4": recall,
        "trail_top_three_precision": hits / max(1, suspected),
        "trail_top_three_recall": hits / max(1, locations),
        "trail_share_of_wrong_steps": base,
    }
    columns = ("runs", "locations", "recall at precision 0.4", "three suspects: precision",
               "recall", "a random step is one")  # fmt: skip
    row = (runs, locations, recall, hits / max(1, suspected), hits / max(1, locations), base)
    report.table("TRAIL: steps that people annotated", columns, [row])


def _recall_at(ranked: Sequence[tuple[float, bool]], locations: int) -> float:
    best = found = 0
    for number, (_, is_wrong) in enumerate(ranked, 1):
        found += is_wrong
        if found / number >= PRECISION:
            best = found
    return best / max(1, locations)


def _print_weights(conversations: Sequence[Conversation]) -> None:
    for name, form in (("PLAIN", False), ("COORDINATED", True)):
        weights = fit([one for one in conversations if one.coordinated is form])
        print(f"{name}: Final = (")
        for feature, weight in zip(FEATURES, weights, strict=True):
            print(f"    {weight:.4f},  # {feature}")
        print(")")


def flags() -> argparse.ArgumentParser:
    """Its own flags next to the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument("--weights", action="store_true", help="print weights fitted on all of it")
    return made


if __name__ == "__main__":
    harness.run("attribution", measure, flags())
