"""Loops and waste, and retrieval that does not serve, as people saw them in real runs (trail_gaia).

Truth: a run is labelled with "Resource Abuse", or "Poor Information Retrieval". How often is too
often is chosen from a small grid on all other runs (leave one out), for the detector and for the
simple counts that it is compared with.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.cases import trail_gaia
from benchmarks.detection.replayed import Replayed, only, replay
from benchmarks.detection.score import RESAMPLES, ROW, Confusion, mean_text
from benchmarks.harness import Goal, Report
from stepstream.schemas.step import StepEvent
from stepstream.stream.detectors.content.retrieval import content_words, query_of, retrieved_text
from stepstream.stream.run.contents import Contents, words

WASTE: Final = "Resource Abuse"
RETRIEVAL: Final = "Poor Information Retrieval"
REPEATS: Final = (2, 3, 4, 5)
SIMILARITIES: Final = (0.5, 0.6, 0.7)
OVERLAPS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MIN_OVERLAPS: Final = (0.0, 0.1, 0.2, 0.3)

# For each setting, whether each run is reported.
Reports = dict[Any, list[bool]]


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Waste, then retrieval."""
    labels = {
        trace_id: {error["category"] for error in errors}
        for trace_id, errors in trail_gaia.annotated_errors().items()
    }
    runs = [run for run in trail_gaia.runs() if run[0].trace_id in labels]
    found = [labels[run[0].trace_id] for run in runs]
    _measure_waste(report, runs, [WASTE in names for names in found])
    _measure_retrieval(report, runs, [RETRIEVAL in names for names in found])


def _measure_waste(report: Report, runs: list[list[StepEvent]], truth: list[bool]) -> None:
    reports: Reports = {}
    replayed: dict[Any, list[Replayed]] = {}
    for repeats in REPEATS:
        for similarity in SIMILARITIES:
            rule = {
                "rule": "repetition",
                "repeats": repeats,
                "similarity": similarity,
                # Identical calls as well, which `loop` reports by default: the labels make no
                # difference.
                "exact": True,
            }
            replayed[repeats, similarity] = replay(runs, only(rule))
            reports[repeats, similarity] = [
                bool(run.findings) for run in replayed[repeats, similarity]
            ]
    repeated: Reports = {least: [_most_repeated(run) >= least for run in runs] for least in REPEATS}
    default = replay(runs)
    ours, chosen = leave_one_out(reports, truth)
    rows = [
        (
            "repetition, how often learnt from the others",
            *_row(ours, truth),
            _early(replayed[chosen]),
        ),
        (
            "repetition and loop, as they are by default",
            *_row([_repeats(run) for run in default], truth),
            _early(default),
        ),
        (
            "baseline: repeat count, learnt from the others",
            *_row(leave_one_out(repeated, truth)[0], truth),
            "",
        ),
        ("baseline: any two failed calls", *_row([_failed(run) >= 2 for run in runs], truth), ""),
    ]
    report.table(
        f"loops and waste: {sum(truth)} of {len(runs)} runs",
        ("how", *ROW, "share of the run's time passed"),
        rows,
    )
    score, baseline = (
        confusion(ours, truth).f1,
        confusion(leave_one_out(repeated, truth)[0], truth).f1,
    )
    low, high = f1_interval(ours, truth)
    report.notes.append(
        f"loops and waste: F1 {score or 0:.3f} ({low:.2f}-{high:.2f}); most folds chose {chosen}"
    )
    report.figures["waste_f1"], report.figures["waste_f1_of_the_repeat_count"] = (
        score or 0.0,
        baseline or 0.0,
    )
    usual = confusion([_repeats(run) for run in default], truth)
    report.figures["waste_f1_by_default"] = usual.f1 or 0.0
    report.goals.append(
        Goal("loops and waste, as by default: F1", usual.f1, 0.75, "", at_most=False)
    )
    report.goals.append(
        Goal(
            "loops and waste: F1 above the repeat count's",
            (score or 0) - (baseline or 0),
            0.001,
            "",
            at_most=False,
        )
    )


def _measure_retrieval(report: Report, runs: list[list[StepEvent]], truth: list[bool]) -> None:
    reports: Reports = {}
    for least in MIN_OVERLAPS:
        reports[least] = [
            bool(run.findings)
            for run in replay(runs, only({"rule": "irrelevant_retrieval", "min_overlap": least}))
        ]
    overlap: Reports = {least: [_least_overlap(run) < least for run in runs] for least in OVERLAPS}
    default = replay(runs, only({"rule": "irrelevant_retrieval"}))
    ours, chosen = leave_one_out(reports, truth)
    baseline, _ = leave_one_out(overlap, truth)
    rows = [
        ("irrelevant retrieval, overlap learnt from the others", *_row(ours, truth), ""),
        (
            "irrelevant retrieval, as it is",
            *_row([bool(run.findings) for run in default], truth),
            _early(default),
        ),
        (
            "baseline: share of the query's words, learnt from the others",
            *_row(baseline, truth),
            "",
        ),
        ("baseline: two searches or more", *_row([_searches(run) >= 2 for run in runs], truth), ""),
    ]
    report.table(
        f"retrieval that does not serve: {sum(truth)} of {len(runs)} runs",
        ("how", *ROW, "share of the run's time passed"),
        rows,
    )
    score, simple = confusion(ours, truth).f1 or 0.0, confusion(baseline, truth).f1 or 0.0
    low, high = f1_interval(ours, truth)
    report.notes.append(
        f"retrieval: F1 {score:.3f} ({low:.2f}-{high:.2f}); most folds chose an overlap of {chosen}"
    )
    report.figures["retrieval_f1"], report.figures["retrieval_f1_of_term_overlap"] = score, simple
    report.goals.append(
        Goal(
            "irrelevant retrieval: F1 above term overlap's",
            score - simple,
            0.001,
            "",
            at_most=False,
        )
    )


def leave_one_out(reports: Reports, truth: Sequence[bool]) -> tuple[list[bool], Any]:
    """Whether each run is reported with the setting that is best on all others, and the setting
    most folds chose."""
    out: list[bool] = []
    chosen: Counter[Any] = Counter()
    # With the run itself in the choice, every setting would get a better score than it has.
    for left_out in range(len(truth)):
        rest = [index for index in range(len(truth)) if index != left_out]
        best = max(
            reports,
            key=lambda setting: (
                confusion([reports[setting][i] for i in rest], [truth[i] for i in rest]).f1 or 0.0
            ),
        )
        chosen[best] += 1
        out.append(reports[best][left_out])
    return out, chosen.most_common(1)[0][0]


def confusion(reports: Sequence[bool], truth: Sequence[bool]) -> Confusion:
    """Counted over runs."""
    counted = Confusion()
    for one, other in zip(reports, truth, strict=True):
        counted = counted.plus(truth=other, found=one)
    return counted


def f1_interval(
    reports: Sequence[bool], truth: Sequence[bool], seed: int = 1
) -> tuple[float, float]:
    """The 95 % interval of F1, by resampling runs."""
    rng = random.Random(seed)
    pairs = list(zip(reports, truth, strict=True))
    drawn = []
    for _ in range(RESAMPLES):
        # Runs are drawn, not findings: those of one run depend on each other.
        sample = rng.choices(pairs, k=len(pairs))
        drawn.append(
            confusion([one for one, _ in sample], [other for _, other in sample]).f1 or 0.0
        )
    drawn.sort()
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def _row(reports: Sequence[bool], truth: Sequence[bool]) -> tuple[str, str, str, str]:
    return confusion(reports, truth).row()


def _early(replayed: Sequence[Replayed]) -> str:
    return mean_text(
        [
            min(run.share_of_time(finding) for finding in run.findings)
            for run in replayed
            if run.findings
        ]
    )


def _repeats(run: Replayed) -> bool:
    return bool(run.of("repetition", "loop"))


def _most_repeated(run: list[StepEvent]) -> int:
    calls = Counter(
        (step.tool or step.name, step.input) for step in run if step.kind == "tool_call"
    )
    return max(calls.values(), default=0)


def _failed(run: list[StepEvent]) -> int:
    return sum(step.status == "error" for step in run if step.kind == "tool_call")


def _queries(run: list[StepEvent]) -> list[float]:
    """The share of the query's words that came back, of each search."""
    shares = []
    for step in run:
        if step.kind not in ("tool_call", "retrieval"):
            continue
        contents = Contents(step)
        query = query_of(step.kind, contents)
        asked = content_words(query)
        if asked:
            found = words(retrieved_text(contents, query))
            shares.append(sum(word in found for word in asked) / len(asked))
    return shares


def _least_overlap(run: list[StepEvent]) -> float:
    return min(_queries(run), default=1.0)


def _searches(run: list[StepEvent]) -> int:
    return len(_queries(run))
