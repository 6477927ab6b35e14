"""A run while its records arrive: its steps, running totals and findings."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

from stepstream.schemas.control import CONTROL_KIND, ControlStep, control_step
from stepstream.schemas.guardrails import GUARDRAIL_ATTRIBUTE, GUARDRAIL_KIND
from stepstream.schemas.prices import Cost
from stepstream.schemas.step import RELEASE_ATTRIBUTE, TASK_ATTRIBUTE, Step
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.run.baseline import Normal
from stepstream.stream.run.limits import NEVER_US
from stepstream.stream.run.rules import RuleSet
from stepstream.stream.run.step_index import StepIndex
from stepstream.stream.run.steps import (
    MAY_REPEAT,
    NO_TOKEN_COUNTS,
    REPEATS,
    StepInfo,
    content_hash,
    drop_texts,
    ended_step,
    started_step,
    text_size,
)


class Identity(NamedTuple):
    """The owner and name of a run: its root's or, until that is known, its earliest step's."""

    project: str
    environment: str
    agent: str
    agent_version: str
    task: str
    session_id: str
    user_id: str
    name: str


Rank = tuple[bool, int, str, bool]
"""The order of records for a run's identity, the smallest wins: a root before others, then the
earliest start, then the smallest id, ends before starts.
"""

NO_RANK: Rank = (True, 2**63, "", True)


class Fired(NamedTuple):
    """A finding that was raised, with the rule and policy that raised it."""

    alert: str
    subject: str
    level: str
    rule: str
    policy: str
    resolved: bool = False
    is_note: bool = False
    """It is a note and opened no alert."""


class Totals:
    """Sums over the ended steps of a run, or of a part of it."""

    __slots__ = ("cost_nanos", "errors", "llm_calls", "steps", "tokens", "tool_calls", "unpriced")

    def __init__(self) -> None:
        self.steps = self.errors = self.llm_calls = self.tool_calls = self.unpriced = (
            self.cost_nanos
        ) = 0
        self.tokens = [0, 0, 0, 0, 0]

    def add(self, info: StepInfo) -> None:
        """Count an ended step."""
        self.steps += 1
        if info.status == "error":
            self.errors += 1
        if info.kind == "llm_call":
            self.llm_calls += info.repeat != REPEATS
        elif info.kind == "tool_call":
            self.tool_calls += 1
        if info.cost_nanos is not None:
            self.cost_nanos += info.cost_nanos
        elif info.cost_source == "unpriced":
            self.unpriced += 1
        if info.tokens is not NO_TOKEN_COUNTS:
            # Most steps use no tokens: the shared tuple is skipped by identity.
            mine, tokens = self.tokens, info.tokens
            for index in _TOKEN_KINDS:
                mine[index] += tokens[index]

    def uncount_call(self, info: StepInfo) -> None:
        """Take back what a model call used: it was counted, and repeats what others used."""
        self.llm_calls -= 1
        if info.cost_nanos is not None:
            self.cost_nanos -= info.cost_nanos
        elif info.cost_source == "unpriced":
            self.unpriced -= 1
        for index in _TOKEN_KINDS:
            self.tokens[index] -= info.tokens[index]

    def join(self, other: Totals) -> None:
        """Add another part's sums."""
        self.steps += other.steps
        self.errors += other.errors
        self.llm_calls += other.llm_calls
        self.tool_calls += other.tool_calls
        self.unpriced += other.unpriced
        self.cost_nanos += other.cost_nanos
        for index in _TOKEN_KINDS:
            self.tokens[index] += other.tokens[index]


_TOKEN_KINDS = range(5)


def sum_of(parts: list[Totals]) -> Totals:
    """The sum of some parts. Do not change it: the sum of one part is that part itself."""
    if len(parts) == 1:
        return parts[0]
    totals = Totals()
    for part in parts:
        totals.join(part)
    return totals


UsageKey = tuple[str, str, int]
"""Agent, its version, and the minute (unix microseconds) that a step ended in."""


NO_NAMES: Final[frozenset[str]] = frozenset()
NONE_OFF: Final = NO_NAMES

MAX_FINDINGS: Final = 100
"""The most findings under one alert's name about one run; further ones are only counted."""

FREE_STEPS: Final = 256
"""A run of so few steps cannot reach ``MAX_TEXT``, so its texts are not counted."""

MAX_TEXT: Final = 1_048_576
"""The most characters in the names and messages of one run's steps."""


_TRANSPARENT: Final = frozenset({"llm_call", "other"})
STANDS_IN_US: Final = 2**62
"""Taken off the start of a step that stands in for a root, so that it ranks before every other
child.
"""


class TaskAttempt(NamedTuple):
    """The durable task that a run is an attempt at, and which attempt."""

    task_id: str
    attempt: int


NO_TASK: Final = TaskAttempt("", 0)


def _rank_of(step: Step) -> Rank:
    """Roots first, then steps whose parent may never report, then all others; the earliest of each
    first.
    """
    start_us = step.start_time - STANDS_IN_US if step.parent_remote else step.start_time
    return (bool(step.parent_step_id), start_us, step.step_id, step.phase != "end")


def _usage_key(info: StepInfo) -> UsageKey:
    return (info.agent, info.agent_version, info.end_us - info.end_us % MINUTE_US)


class Run:
    """One run. ``merge`` takes records in any order; the result depends only on which records were
    merged.
    """

    __slots__ = (
        "above_calls",
        "by_minute",
        "changed_minutes",
        "closed",
        "closed_at_us",
        "controls",
        "cost_nanos",
        "detector_state",
        "duplicates",
        "errors",
        "fired",
        "first_append_us",
        "identity",
        "last_append_us",
        "late_steps",
        "live",
        "merged_events",
        "next_timer_us",
        "normal",
        "not_over_at",
        "off",
        "open",
        "over_limit",
        "presumed_root",
        "raised",
        "rank",
        "release",
        "repeated",
        "root",
        "rules",
        "session_rank",
        "started_late",
        "step_index",
        "steps",
        "task",
        "text_size",
        "timers",
        "trace_id",
        "unflagged",
        "user_rank",
    )

    def __init__(self, trace_id: str, append_us: int, rules: RuleSet) -> None:
        self.trace_id = trace_id
        self.first_append_us = append_us
        self.last_append_us = append_us
        self.rules = rules
        self.normal: Normal | None = None
        """The newest baseline from before it began; None where no rule needs one or none is known.
        """
        self.live = True
        self.timers: dict[str, int] = {}
        """When ``on_timer`` of which detectors is due, in log time, by the detectors' name."""
        self.next_timer_us = NEVER_US
        """The earliest of ``timers``."""
        self.started_late = False
        self.steps: dict[str, StepInfo] = {}
        self.above_calls: set[str] = set()
        """Ids of steps that stand above a model call with usage: what they used themselves repeats
        it.
        """
        self.repeated: list[str] = []
        """Ids of calls whose usage repeats that of calls below them."""
        self.open: dict[str, StepInfo] = {}
        self.step_index: StepIndex | None = None
        """Order and summary of its steps for the next trajectory; None where they must be worked
        out again.
        """
        self.root: StepInfo | None = None
        self.presumed_root: StepInfo | None = None
        """The oldest step without a parent here, once the run is presumed to be over; see
        ``presume_over``.
        """
        self.unflagged = False
        """Whether the sender of one of its steps did not state if the parent is in another process.
        """
        self.release = ""
        """The hash of the release that the root names; until it is known, the earliest step."""
        self.task = NO_TASK
        """The task that the root names."""
        self.identity = Identity("default", "", "", "", "", "", "", "")
        self.rank: Rank = NO_RANK
        self.session_rank: Rank = NO_RANK
        self.user_rank: Rank = NO_RANK
        # The latter: merged_events when presume_over last found that it is not over.
        self.merged_events = self.not_over_at = 0
        self.cost_nanos = 0
        self.errors = 0
        self.by_minute: dict[UsageKey, Totals] = {}
        self.changed_minutes: set[UsageKey] = set()
        self.duplicates = self.over_limit = self.late_steps = 0
        self.closed = False
        self.closed_at_us = 0
        self.fired: dict[str, Fired] = {}
        self.raised: Counter[str] = Counter()
        self.text_size = -1
        self.detector_state: dict[str, Any] = {}
        self.controls: dict[str, ControlStep] = {}
        """What its control steps and those of guardrails report, by step id."""
        self.off: frozenset[str] = NONE_OFF
        """Names of the detectors that have raised in this run and are not called any more."""

    @property
    def revision(self) -> int:
        """2 x the distinct (step, phase) merged, + 1 once closed, + 1 if it was published as closed
        before that, so that no replay and no partial run has a higher one than the complete run.
        """
        return 2 * self.merged_events + self.closed + (self.presumed_root is not None)

    @property
    def root_ended(self) -> bool:
        """Whether the root was seen to end."""
        return self.root is not None and self.root.ended

    @property
    def is_shown_closed(self) -> bool:
        """Whether it is published as closed: it is, or it is presumed to be over."""
        return self.closed or self.presumed_root is not None

    @property
    def shown_root(self) -> StepInfo | None:
        """The root; that of a run that is presumed to be over is the step that stands in for it."""
        return self.root if self.root is not None else self.presumed_root

    @property
    def is_provisional(self) -> bool:
        """Whether it is closed by the end of a step that stands in for the root."""
        root = self.shown_root
        return self.is_shown_closed and root is not None and root.parent != ""

    @property
    def is_late_fragment(self) -> bool:
        """Whether these are late steps of a run that was forgotten, not a run of their own: it has
        no root.
        """
        return self.started_late and self.root is None

    def presume_over(self) -> bool:
        """Note that the run may be over: all steps have ended, and the senders of the uppermost
        ones did not state whether their parents are in other processes, which may never report.

        It stays open for its detectors and is published as closed; the next step ends that. Returns
        False, and changes nothing, where the run is not of that form.
        """
        if self.root is not None or self.open or self.started_late or not self.unflagged:
            return False
        top = [info for info in self.steps.values() if info.parent not in self.steps]
        # None: the parents of broken senders may go in a circle.
        if not top or not all(info.ended and info.parent_unknown for info in top):
            self.not_over_at = self.merged_events
            return False
        self.presumed_root = min(top, key=lambda info: (info.start_us, info.step_id))
        return True

    def adopt_root(self) -> None:
        """Let the oldest of the uppermost steps stand in for the root of a run that closes."""
        if self.presume_over():
            self.root = self.presumed_root

    # A detector may call this for every record: a later time costs one look-up and no change.
    def set_timer(self, name: str, at_us: int) -> None:
        """Have ``on_timer`` of the detectors of this name called once log time has reached
        ``at_us``.

        An earlier timer of the same name stays: ``on_timer`` sets the next one when it is called.
        """
        timers = self.timers
        if at_us < timers.get(name, NEVER_US):
            timers[name] = at_us
            self.next_timer_us = min(self.next_timer_us, at_us)

    def take_due_timers(self, now_us: int) -> frozenset[str]:
        """Remove the timers that are due; returns their names."""
        if self.next_timer_us > now_us:
            return NO_NAMES
        due = frozenset(name for name, at_us in self.timers.items() if at_us <= now_us)
        for name in due:
            del self.timers[name]
        self.next_timer_us = min(self.timers.values(), default=NEVER_US)
        return due

    def wake_timers(self, at_us: int) -> None:
        """Have every timer of its rules called: what they would have set before is not known."""
        for detector in self.rules.timers:
            self.set_timer(detector.name, at_us)

    def merge(self, step: Step, cost: Cost, append_us: int, max_steps: int) -> StepInfo | None:
        """Merge one accepted record. Returns its step, None when it changes nothing (a duplicate,
        or beyond ``max_steps``).
        """
        self.last_append_us = max(self.last_append_us, append_us)
        before = self.steps.get(step.step_id)
        if (
            before is None
            and len(self.steps) >= max_steps
            and (step.parent_step_id or self.root is not None)
        ):
            self.over_limit += 1
            return None
        root_before = self.root
        # A start and an end may come in either order, each more than once.
        info = (
            self._start(step, before, append_us)
            if step.phase == "start"
            else self._end(step, before, append_us, cost)
        )
        if info is None:
            self.duplicates += 1
            return None
        self.merged_events += 1
        self.presumed_root = None
        if info.parent_unknown:
            self.unflagged = True
        if len(self.steps) > FREE_STEPS:
            self._bound_texts(info, before)
        if step.phase == "end":
            self._count(info)
        if step.kind == CONTROL_KIND or (
            step.kind == GUARDRAIL_KIND and GUARDRAIL_ATTRIBUTE in step.attributes
        ):
            self.controls[info.step_id] = control_step(step.name, step.attributes)
        self._identify(step, info)
        root = self.root
        # A root that did not change is checked again only when its parent has ended: to follow
        # the parents at every record takes quadratic time where they go in a circle.
        if (
            root is not None
            and root.parent_unknown
            and (root is not root_before or (info.ended and info.step_id == root.parent))
        ):
            self._raise_root()
        return info

    def _raise_root(self) -> None:
        """Move from a step that stands in for the root to its parents, which came later."""
        root = self.root
        # Bounded: the parents of broken senders may go in a circle.
        for _ in range(len(self.steps)):
            above = None if root is None else self.steps.get(root.parent)
            if above is None or not above.ended:
                break
            root = above
        self.root = root

    def amend(self, step: Step) -> StepInfo | None:
        """Add contents that came apart from an ended step. Returns the step; None where it does not
        have more contents by that.
        """
        info = self.steps[step.step_id]
        given, taken = content_hash(step.input), content_hash(step.output)
        adds = (not info.input_hash and given) or (not info.output_hash and taken)
        if not adds:
            self.duplicates += 1
            return None
        info.input_hash = info.input_hash or given
        info.output_hash = info.output_hash or taken
        return info

    def control_of(self, step: StepInfo) -> ControlStep:
        """What a control step reports. State records of older workers have its name alone."""
        return self.controls.get(step.step_id) or control_step(step.name, {})

    def decision_of(self, step: StepInfo) -> str:
        """What a guardrail of a policy decided; empty for other steps of kind ``guardrail``."""
        reported = self.controls.get(step.step_id)
        return "" if reported is None else reported.action

    def _start(self, step: Step, before: StepInfo | None, append_us: int) -> StepInfo | None:
        """A start that comes after its end only counts as received."""
        if before is None:
            info = started_step(step, self._shared_id(step.parent_step_id), append_us)
            self.steps[info.step_id] = self.open[info.step_id] = info
            return info
        if before.started:
            return None
        before.started = True
        return before

    def _end(
        self, step: Step, before: StepInfo | None, append_us: int, cost: Cost
    ) -> StepInfo | None:
        """An end replaces all fields of a start, whichever came first."""
        if before is not None and before.ended:
            return None
        info = ended_step(step, self._shared_id(step.parent_step_id), cost, before, append_us)
        self.steps[info.step_id] = info
        if before is not None:
            self.open.pop(step.step_id, None)
            if before is self.root:
                self.root = info
                self._note_root(step)
            if before.start_us != info.start_us:
                self.step_index = None
        return info

    def _note_root(self, step: Step) -> None:
        self.release = step.attributes.get(RELEASE_ATTRIBUTE, self.release)
        if task_id := step.attributes.get(TASK_ATTRIBUTE, ""):
            self.task = TaskAttempt(task_id, step.attempt)

    def _shared_id(self, parent: str) -> str:
        """A parent's id as the string object of the parent step, so that it is in memory once."""
        step = self.steps.get(parent)
        return parent if step is None else step.step_id

    def _bound_texts(self, info: StepInfo, before: StepInfo | None) -> None:
        """Drop the texts of steps beyond ``MAX_TEXT``: a run's state must fit into a record."""
        if self.text_size < 0:
            self.text_size = sum(map(text_size, self.steps.values()))
        elif before is not info:
            self.text_size += text_size(info) - (text_size(before) if before is not None else 0)
        if self.text_size > MAX_TEXT:
            self.text_size -= text_size(info)
            drop_texts(info)
            self.step_index = None

    @property
    def totals(self) -> Totals:
        """Sums over all ended steps. Do not change them."""
        return sum_of(list(self.by_minute.values()))

    def _count(self, info: StepInfo) -> None:
        if info.cost_nanos:
            self.cost_nanos += info.cost_nanos
        if info.status == "error":
            self.errors += 1
        key = _usage_key(info)
        part = self.by_minute.get(key)
        if part is None:
            part = self.by_minute[key] = Totals()
        part.add(info)
        self.changed_minutes.add(key)
        if info.repeat or info.step_id in self.above_calls:
            self._settle_repeats(info)

    def _settle_repeats(self, info: StepInfo) -> None:
        """Count an ended call's usage at the innermost call alone.

        Spans of nested instrumentations repeat what the calls below them used. Steps come in any
        order, so marks go up through every step that has ended, as far as calls and steps without
        a kind reach: an agent or a tool in between starts something of its own.
        """
        if info.repeat == MAY_REPEAT and info.step_id in self.above_calls:
            self._uncount(info)
        if info.kind not in _TRANSPARENT:
            return
        above = info.parent
        while above and above not in self.above_calls:
            self.above_calls.add(above)
            step = self.steps.get(above)
            if step is None or not step.ended or step.kind not in _TRANSPARENT:
                return
            if step.repeat == MAY_REPEAT:
                self._uncount(step)
            above = step.parent

    def _uncount(self, info: StepInfo) -> None:
        key = _usage_key(info)
        self.by_minute[key].uncount_call(info)
        self.changed_minutes.add(key)
        self.cost_nanos -= info.cost_nanos or 0
        info.repeat = REPEATS
        self.repeated.append(info.step_id)
        info.tokens, info.cost_nanos, info.cost_source = NO_TOKEN_COUNTS, None, ""

    def _name_session_and_user(self, step: Step) -> None:
        """Session and user are those of the run's root, else of the earliest step that has one."""
        rank = _rank_of(step)
        if step.session_id and rank < self.session_rank:
            self.session_rank = rank
            self.identity = self.identity._replace(session_id=step.session_id)
        if step.user_id and rank < self.user_rank:
            self.user_rank = rank
            self.identity = self.identity._replace(user_id=step.user_id)

    def _identify(self, step: Step, info: StepInfo) -> None:
        if step.session_id or step.user_id:
            self._name_session_and_user(step)
        is_root = not step.parent_step_id
        if not is_root and self.root is not None and not step.parent_remote:
            return
        rank = _rank_of(step)
        if rank >= self.rank:
            return
        self.rank = rank
        self._note_root(step)
        self.identity = Identity(
            step.project,
            step.environment,
            step.agent,
            step.agent_version,
            step.task,
            self.identity.session_id,
            self.identity.user_id,
            step.name,
        )
        # Steps without an agent of their own count for the run's, which may be another one now.
        self.changed_minutes.update(key for key in self.by_minute if not key[0])
        if is_root or step.parent_remote:
            self.root = info

    def recount(self) -> None:
        """Rebuild what is derived from the steps, after a restore from a state record.

        All minutes count as changed: the state may contain growth that was not published yet.
        """
        self.by_minute, self.open, self.above_calls = {}, {}, set()
        self.repeated = [info.step_id for info in self.steps.values() if info.repeat == REPEATS]
        self.step_index = None
        self.cost_nanos = self.errors = 0
        self.text_size = (
            -1 if len(self.steps) <= FREE_STEPS else sum(map(text_size, self.steps.values()))
        )
        self.raised = Counter(fired.alert for fired in self.fired.values())
        self.unflagged = any(info.parent_unknown for info in self.steps.values())
        for info in self.steps.values():
            if info.ended:
                self._count(info)
            elif info.started:
                self.open[info.step_id] = info
