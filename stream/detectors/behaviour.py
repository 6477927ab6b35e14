"""What a run does: the same call again and again, an error that nobody minded, a model whose price is unknown."""

from __future__ import annotations

from stepstream.schemas.rules_run import Loop
from stepstream.stream.detectors.base import MAX_EVIDENCE, NOTHING, DetectorBase, Observation, Observations
from stepstream.stream.rules import Applied
from stepstream.stream.run import Run
from stepstream.stream.steps import StepInfo

_MAX_CALLS = 2_000
_LOOPING_KINDS = frozenset({"tool_call", "retrieval", "llm_call"})
_OWN_MEANS = frozenset({"tool_call", "retrieval"})


class LoopDetector(DetectorBase):
    """The same call with the same input gave the same answer again and again: no progress, only cost.

    A call that is repeated while its answer changes (polling a job) is not a loop.
    """

    def __init__(self, applied: Applied, rule: Loop) -> None:
        super().__init__(applied)
        self._repeats = rule.repeats

    def concerns(self, kind: str, *, ended: bool) -> bool:
        """Ended calls."""
        return ended and kind in _LOOPING_KINDS

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Count an ended call; its input, answer and outcome make it the same or another."""
        if not step.ended or not step.input_hash or step.kind not in _LOOPING_KINDS:
            return NOTHING
        calls: dict[str, list[str]] = self.state(run, {})
        key = f"{step.kind}|{step.label}|{step.input_hash:x}|{step.output_hash:x}|{step.status}"
        seen = calls.get(key)
        if seen is None:
            if len(calls) >= _MAX_CALLS:
                return NOTHING
            seen = calls[key] = []
        if len(seen) < MAX_EVIDENCE:
            seen.append(step.step_id)
        if len(seen) < self._repeats:
            return NOTHING
        outcome = "failed the same way" if step.status == "error" else "gave the same answer"
        return (
            Observation(
                message=f"{step.label} was called {len(seen)} times with the same input and {outcome}",
                severity=self.severity("warning"),
                subject=f"{step.label}:{step.input_hash:x}",
                step_ids=tuple(seen),
                value=float(len(seen)),
                threshold=float(self._repeats),
                unit="count",
            ),
        )


class ToolErrorIgnoredDetector(DetectorBase):
    """A tool failed, nothing retried or replaced it, and the run went on to a successful end.

    Another step makes good for it that says so, or that called the same tool later and succeeded, or has not ended yet.
    Judged when an output step begins after the failure, and at the root's end; the close judges again for what was late.
    """

    def concerns(self, kind: str, *, ended: bool) -> bool:
        """Any end may be the last; an output may begin."""
        return ended or kind == "output"

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Judge at the points where the run shows that it will not come back to the failure."""
        if not run.errors:
            return NOTHING
        if step.kind == "output":
            return self._judge(run, before_us=step.start_us)
        root = run.root
        is_end_of_run = root is not None and root.ended and root.status == "ok" and not run.open
        # What comes after the end and did not fail, nor was the last thing open, leaves no failure worse than it was.
        if is_end_of_run and (step is root or step.status == "error" or step.started):
            return self._judge(run, before_us=None)
        return NOTHING

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Judge what came in late."""
        if run.errors and run.root_ended and run.root is not None and run.root.status == "ok":
            return self._judge(run, before_us=None)
        return NOTHING

    def _judge(self, run: Run, before_us: int | None) -> list[Observation]:
        failed: list[StepInfo] = []
        replaced: set[str] = set()
        good_again: dict[tuple[str, str], int] = {}
        for step in run.steps.values():
            if step.retry_of or step.fallback_of:
                replaced.update((step.retry_of, step.fallback_of))
            if step.kind not in _OWN_MEANS:
                continue
            if not step.ended or step.status == "ok":
                means = (step.kind, step.label)
                good_again[means] = max(step.start_us, good_again.get(means, 0))
            elif step.status == "error" and (before_us is None or step.end_us <= before_us):
                failed.append(step)
        return [
            self._say(step)
            for step in failed
            if step.step_id not in replaced
            and good_again.get((step.kind, step.label), -1) < step.end_us
            and not self.has_fired(run, step.label)
        ]

    def _say(self, step: StepInfo) -> Observation:
        error = step.error_type or step.error_message or "an error"
        return Observation(
            message=f"{step.label} failed ({error[:80]}), nothing retried or replaced it, and the run went on as if it had not",
            severity=self.severity("error"),
            subject=step.label,
            step_ids=(step.step_id,),
            detail=step.error_message[:200],
        )


class UnpricedModelDetector(DetectorBase):
    """A step used tokens of a model whose price is unknown: the run's cost is not the whole truth."""

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Judge an ended step."""
        if step.cost_source != "unpriced":
            return NOTHING
        model = step.model or "(no model named)"
        tokens = step.tokens[0] + step.tokens[1]
        return (
            Observation(
                message=f"no price is known for model {model}: its {tokens:,} tokens count as cost unknown, not as free",
                detail="add it with a Prices document: stepstream apply -f prices.yaml",
                severity=self.severity("warning"),
                subject=model,
                step_ids=(step.step_id,),
                value=float(tokens),
                unit="tokens",
            ),
        )
