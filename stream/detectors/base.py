"""What a detector is: pure, with its state in the run and the time passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, cast

from typing_extensions import TypeVar

from stepstream.schemas.alert import FindingSeverity, Unit
from stepstream.schemas.rule_base import RuleBase
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import MAX_FINDINGS, Run
from stepstream.stream.run.steps import StepInfo

MAX_EVIDENCE = 20


@dataclass(frozen=True, slots=True)
class Observation:
    """What a detector saw. It is raised once per (subject, level) of a run; ``resolved`` ends what it raised before.

    ``withdrawn`` ends it too, because later steps contradict it.

    ``message`` is in words of ours, with names (of agents, tools, models, error types) and numbers. Whatever else a step
    said, a tool's error message too, is content: it belongs into ``quoted`` or, as a likely cause, into ``detail``.
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
NOTHING: tuple[Observation, ...] = ()


class Detector(Protocol):
    """Judges runs by one rule. Instances hold no state of a run and are shared: a run's is in ``run.detector_state``.

    State must be plain lists, dicts, numbers and text: it is kept in the run's state record. A detector that raises, in
    whatever it is asked, is off for that run from then on.
    """

    applied: Applied
    name: str
    """Under which a run keeps its state, and that it is off."""
    quickest_us: int
    """The shortest time after a record that ``notify_at`` may name; 0 for a detector without timers."""
    holds: bool
    """Whether it says in ``run.look_us`` when it wants to be asked, so that ``quickest_us`` need not be assumed."""
    observes: bool
    """Whether ``observe`` is to be called."""
    writes_first: bool
    """Whether what it finds depends on more than the log, so that the run's state is to say so before it is told."""
    wanted_runs: int
    """How many runs its baseline must have been learnt from; 0 for a detector that needs none."""
    reads: bool
    """Whether ``read`` is to be called, which costs the decoding of contents."""
    has_timer: bool
    """Whether ``on_timer`` is to be called."""

    def concerns(self, kind: str, *, ended: bool) -> bool:
        """Whether a step of this kind can be news to it, in a run where it has found nothing yet."""
        ...

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Look at a run after one record was merged into ``step``."""
        ...

    def reads_kind(self, kind: str) -> bool:
        """Whether ``read`` is to be called for steps of a kind."""
        ...

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Look at what an ended step said, once, after its end was merged. Nothing of it is kept for later calls."""
        ...

    def notify_at(self, run: Run) -> int | None:
        """When ``on_time`` wants to be called next, in log time; None for never. Asked again after each record."""
        ...

    def on_time(self, run: Run, now_us: int) -> Observations:
        """Look at a run because time has passed."""
        ...

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Return what is due at ``now_us``, and set the timer for what is due later.

        Called once the timer that ``run.set_timer(self.name, at_us)`` has set is due; the timer is gone then. Also
        called before anything is due: with a run's first record, when its root brings other rules, and after a
        restart, because timers are not part of the state record.
        """
        ...

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Look at a run as it closes."""
        ...


R = TypeVar("R", bound=RuleBase, default=RuleBase)


class DetectorBase(Generic[R]):
    """A detector of a rule ``R`` that reports nothing: subclasses override what they need."""

    quickest_us = 0
    holds = False
    observes = True
    reads = False
    writes_first = False
    wanted_runs = 0
    has_timer = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.has_timer = cls.on_timer is not DetectorBase.on_timer

    def __init__(self, applied: Applied) -> None:
        self.applied = applied
        self.rule = cast("R", applied.rule)
        self.name = applied.rule.alert_name

    def concerns(self, kind: str, *, ended: bool) -> bool:
        """Ends."""
        return ended

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Nothing."""
        return NOTHING

    def reads_kind(self, kind: str) -> bool:
        """All of them."""
        return True

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Nothing."""
        return NOTHING

    def notify_at(self, run: Run) -> int | None:
        """Never."""
        return None

    def on_time(self, run: Run, now_us: int) -> Observations:
        """Nothing."""
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        return NOTHING

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Nothing."""
        return NOTHING

    def severity(self, default: FindingSeverity) -> FindingSeverity:
        """The severity that the policy gives, else the one that follows from consequence."""
        return self.applied.rule.severity or default

    def has_fired(self, run: Run, subject: str = "", level: str = "") -> bool:
        """Whether the run was reported about this subject before: what is said once need not be worked out again.

        A run that was reported too often is as if it had been reported about everything.
        """
        if not run.fired:
            return False
        return (
            f"{self.name}|{subject}|{level}" in run.fired or run.raised[self.name] >= MAX_FINDINGS
        )

    def state(self, run: Run, default: Any) -> Any:
        """This rule's state in the run, made from ``default`` the first time."""
        return run.detector_state.setdefault(self.name, default)


def progress(run: Run) -> str:
    """How far the run is, for the end of a sentence."""
    if run.closed or run.root_ended:
        return f"it ended after {len(run.steps)} steps"
    return f"still running, step {len(run.steps)}"
