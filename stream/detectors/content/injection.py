"""Instructions in what a tool or a retrieval returned, and a call that follows them."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator

from stepstream.schemas.classifiers import CLASSIFIERS
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, DeferringDetector, excerpt
from stepstream.stream.detectors.content.injection_forms import (
    addresses_in,
    instruction_in,
    names_tool,
)
from stepstream.stream.detectors.reading import may_compare
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class Injection(RuleBase):
    """An output contains instructions, and the agent then uses a new tool or address.

    Off by default: it reads every output of a tool.
    """

    reads_contents = True
    fires_when = (
        "an output of a tool or a retrieval contains instructions, and a later call uses a tool, "
        "an address or a recipient that is new in the run"
    )
    usual_severity = "critical for an address from that output, else error"

    rule: Literal["injection"]
    trusted_tools: tuple[str, ...] = Field(
        (), description="tools whose outputs may give instructions"
    )
    classifier: str = Field(
        "", description="a classifier of an installed package that scores each output"
    )
    threshold: float = Field(
        0.8, gt=0, le=1, description="a score from which on an output counts as instructions"
    )

    @field_validator("classifier")
    @classmethod
    def _is_installed(cls, classifier: str) -> str:
        if classifier and classifier not in CLASSIFIERS:
            raise ValueError(CLASSIFIERS.unknown(classifier))
        return classifier


MAX_SOURCES: Final = 20
MAX_USES: Final = 200
MAX_KNOWN: Final = 1_000
_READ: Final = CALLS | {"llm_call", "agent", "output", "other", "plan"}


@detector_for(Injection)
class InjectionDetector(DeferringDetector[Injection]):
    """Remembers outputs with instructions, the addresses of calls, and where each was seen first.

    A call is compared with all outputs that ended before it began, by the steps' own times, so
    that the order in which records arrive does not matter.
    """

    kinds = _READ

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        name = self.rule.classifier
        self._classifier = CLASSIFIERS.get(name) if name else None
        self._trusted = frozenset(self.rule.trusted_tools)

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Learn from an ended step; compare calls with the outputs that have instructions."""
        state = self.own(run)
        for name, empty in (("sources", list), ("uses", list), ("known", dict)):
            state.setdefault(name, empty())
        is_call = step.kind in CALLS
        self._learn(state, step, contents, is_call=is_call)
        new_source = is_call and self._note_source(state, step, contents)
        if not is_call:
            return NOTHING
        uses: list[Any] = state["uses"]
        use = [step.step_id, step.start_us, step.label, sorted(addresses_in(contents.input))]
        if len(uses) < MAX_USES:
            uses.append(use)
        # A record may have come before those of the moments before it: each pair is compared
        # when either of the two arrives, and evaluated a little later.
        pairs = [(source, use) for source in state["sources"]]
        if new_source:
            pairs += [(state["sources"][-1], other) for other in uses]
        if pairs and not may_compare(state, len(pairs)):
            return NOTHING
        for source, other in pairs:
            if _may_follow(source, other):
                self.defer(run, f"{source[0]}|{other[0]}", now_us)
        return NOTHING

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """Compare a call with an output before it."""
        state = self.own(run)
        source_id, _, step_id = key.partition("|")
        source = next((one for one in state["sources"] if one[0] == source_id), None)
        use = next((one for one in state["uses"] if one[0] == step_id), None)
        if source is None or use is None:
            return []
        found = self._compared(run, state, source, use)
        return [] if found is None else [found]

    def _learn(
        self, state: dict[str, Any], step: StepInfo, contents: Contents, *, is_call: bool
    ) -> None:
        """Note when each address was seen first. A call's own input is what is checked."""
        known: dict[str, int] = state["known"]
        seen = [(contents.output, step.end_us)]
        if not is_call:
            seen.append((contents.input, step.start_us))
        for text, at_us in seen:
            if "@" not in text and "/" not in text and not any(map(str.isdigit, text[:4_000])):
                continue
            for address in addresses_in(text):
                if address in known or len(known) < MAX_KNOWN:
                    known[address] = min(at_us, known.get(address, at_us))

    def _note_source(self, state: dict[str, Any], step: StepInfo, contents: Contents) -> bool:
        """Remember the output if it has instructions. Returns whether it has."""
        sources: list[Any] = state["sources"]
        if not contents.output or step.label in self._trusted or len(sources) >= MAX_SOURCES:
            return False
        found = instruction_in(contents.output, contents.output_words)
        if self._classifier is not None and (found is None or not found[2]):
            score = float(self._classifier(contents.output))
            if score >= self.rule.threshold:
                found = (0, contents.output[:600], True)
        if found is None:
            return False
        _, text, by_form = found
        addresses = sorted(addresses_in(text))
        if not by_form and not addresses:
            return False
        sources.append([step.step_id, step.end_us, step.label, text[:600], by_form, addresses])
        return True

    def _compared(
        self, run: Run, state: dict[str, Any], source: list[Any], use: list[Any]
    ) -> Observation | None:
        """What a call that began after an output shows; None for what it need not have caused."""
        source_id, ended_us, _, text, by_form, addresses = source
        _, start_us, label, used = use
        if self.has_fired(run, label, source_id):
            return None
        known: dict[str, int] = state["known"]
        # Not every address is known: of a text only the first ones are noted.
        from_there = [
            address
            for address in used
            if address in addresses and known.get(address, ended_us) >= ended_us
        ]
        if from_there:
            what = f"{label} was called with an address that came from there"
            return self._observation(source, use, what, "critical")
        if not by_form or not self._is_new(run, label, ended_us):
            return None
        new = [address for address in used if known.get(address, start_us) >= ended_us]
        if names_tool(text, label):
            what = f"{label}, which it names and which was not used before, was called"
        elif new:
            what = f"{label}, which was not used before, was called with a new address"
        else:
            return None
        return self._observation(source, use, what, "error")

    def _is_new(self, run: Run, label: str, before_us: int) -> bool:
        return not any(
            info.label == label and info.start_us < before_us and info.kind in CALLS
            for info in run.steps.values()
        )

    def _observation(
        self,
        source: list[Any],
        use: list[Any],
        what: str,
        severity: Literal["error", "critical"],
    ) -> Observation:
        source_id, _, source_label, text, _, _ = source
        return Observation(
            message=f"the output of {source_label} contains instructions, and then {what}",
            quoted=excerpt(text),
            severity=self.severity(severity),
            subject=use[2],
            level=source_id,
            step_ids=(source_id, use[0]),
        )


def _may_follow(source: list[Any], use: list[Any]) -> bool:
    """Whether a call began after an output that it may have been caused by."""
    by_form, addresses = source[4], source[5]
    is_later = use[1] >= source[1] and use[0] != source[0]
    return is_later and (by_form or any(one in addresses for one in use[3]))
