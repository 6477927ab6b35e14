"""What a detector is: a pure class whose state is in the run, called with log time passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, cast

from typing_extensions import TypeVar

from stepstream.schemas.alert import FindingSeverity, Unit
from stepstream.schemas.rule_base import RuleBase
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import MAX_FINDINGS, Run
from stepstream.stream.run.steps import StepInfo

MAX_EVIDENCE: Final = 20
"""Steps that an observation names at most."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a detector found. It becomes a finding once per (subject, level) of a run.

    ``resolved`` ends what was found before about this subject and level; ``withdrawn`` ends it too,
    because later steps contradict it.

    ``message`` is written by the detector, with names (of agents, tools, models, error types) and
    numbers. Text from a step's contents, a tool's error message too, belongs into ``quoted`` or, as
    a likely cause, into ``detail``: both are redacted where contents must not leave the system.
    """

    message: str
    severity: FindingSeverity
    subject: str = ""
    level: str = ""
    step_ids: tuple[str, ...] = ()
    value: float | None = None
    threshold: float | None = None
    unit: Unit = ""
    quoted: str = ""
    detail: str = ""
    resolved: bool = False
    withdrawn: bool = False
    baseline: float | None = None
    baseline_runs: int = 0


Observations = Iterable[Observation]
NOTHING: Final[tuple[Observation, ...]] = ()


class RuleError(Exception):
    """A rule of a policy had no result this time. The detector stays on; the message, which has
    nothing of the data, is counted and reported.
    """


class Detector(Protocol):
    """Evaluates runs by one rule.

    An instance is shared by all runs with the rule, so it keeps no state of a run: that is in
    ``run.detector_state[name]``, as plain lists, dicts, numbers and texts, because it is written to
    the run's state record. A detector that raises is switched off for that run, unless it raises
    ``RuleError``.
    """

    applied: Applied
    name: str
    """The key of its state in a run, and of its timer: the alert's name, unless another rule of the
    run has it."""
    follows_steps: bool
    """Whether ``on_step`` is called."""
    reads_contents: bool
    """Whether ``on_content`` is called, for which a step's contents are decoded."""
    has_timer: bool
    """Whether ``on_timer`` is called."""
    wanted_runs: int
    """Runs that its baseline must have been learnt from; 0 if it uses no baseline."""

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Whether ``on_step`` is called for steps of this kind in a run without findings."""
        ...

    def wants_content(self, kind: str) -> bool:
        """Whether ``on_content`` is called for steps of this kind."""
        ...

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Called after one record was merged into ``step``."""
        ...

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Called once for an ended step, after ``on_step``.

        ``contents`` are not kept for later calls.
        """
        ...

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Return what is due at ``now_us``, and set the timer for what is due later.

        Called once the timer that ``run.set_timer(self.name, at_us)`` has set is due; the timer is
        gone then. Also called before anything is due: with a run's first record, when its root
        brings other rules, and after a restart, because timers are not part of the state record.
        """
        ...

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Called as the run closes."""
        ...


R = TypeVar("R", bound=RuleBase, default=RuleBase)


class DetectorBase(Generic[R]):
    """A detector of a rule ``R`` that finds nothing: subclasses override what they need.

    Only the methods that a subclass overrides are called.
    """

    follows_steps = False
    reads_contents = False
    has_timer = False
    wanted_runs = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Decided once per class, because the worker asks for each step and detector.
        cls.follows_steps = cls.on_step is not DetectorBase.on_step
        cls.reads_contents = cls.on_content is not DetectorBase.on_content
        cls.has_timer = cls.on_timer is not DetectorBase.on_timer

    def __init__(self, applied: Applied) -> None:
        self.applied = applied
        self.rule = cast("R", applied.rule)
        self.name = applied.key

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        return ended

    def wants_content(self, kind: str) -> bool:
        return True

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        return NOTHING

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        return NOTHING

    def on_close(self, run: Run, now_us: int) -> Observations:
        return NOTHING

    def severity(self, default: FindingSeverity) -> FindingSeverity:
        """The severity that the policy gives, else ``default``."""
        return self.rule.severity or default

    def has_fired(self, run: Run, subject: str = "", level: str = "") -> bool:
        """Whether this was found before in the run, so that it need not be evaluated again.

        Also True for everything once the run has ``MAX_FINDINGS`` findings of this detector.
        """
        # Most runs have no finding: this test comes before the key is built, for every step.
        if not run.fired:
            return False
        return (
            f"{self.name}|{subject}|{level}" in run.fired
            or run.raised[self.rule.alert_name] >= MAX_FINDINGS
        )

    def state(self, run: Run, default: Any) -> Any:
        """This detector's state in the run; ``default`` is stored the first time."""
        return run.detector_state.setdefault(self.name, default)
