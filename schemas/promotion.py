"""Promotions: commands that put a release under a label, and what was decided about them. Pure.

A label (``production``) names the release that agents use. Only a decision changes it. A command
names the change that its sender saw last (``expected``), so of two commands sent at the same time
the one that comes second in the log is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepstream.schemas.policy import Policy
from stepstream.schemas.release import SHOWN_HASH, AgentName
from stepstream.schemas.step import TimeUs
from stepstream.schemas.times import HOUR_US

LABEL_PATTERN: Final = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
DEFAULT_LABEL: Final = "production"
MAX_EARLIER: Final = 50
"""Earlier releases of a label that can be rolled back to."""
MAX_LABELS: Final = 100
MAX_TEXT: Final = 2_000
MAX_SHOWN_BY: Final = 100
"""Characters that a label keeps of who changed it; with whole texts the record of all labels could
become larger than Kafka takes. The decision has the whole text."""
MAX_AGE_US: Final = HOUR_US
"""A command that no worker decided about for so long is refused: its sender waits no longer."""

Kind = TypeVar("Kind", bound=BaseModel)
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class _Record(BaseModel):
    # Fields of a newer version are ignored: an old worker may read what a new command wrote.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Verdict(_Record):
    """What a promotion gate answered."""

    gate: Text
    outcome: Literal["pass", "fail", "inconclusive", "missing"] = Field(
        description="missing: no package has registered this gate, or it raised an error"
    )
    detail: Text = ""


class Promotion(_Record):
    """A command: put a release under a label, or go back to the one before."""

    id: Id
    action: Literal["promote", "rollback"]
    agent: AgentName
    label: Label
    release: Hash = Field("", description="its hash; empty in a rollback: the one before")
    version: Text = ""
    expected: int = Field(ge=0, description="the label's last change that the sender saw; 0: none")
    by: Text
    at: TimeUs
    reason: Text = ""
    verdicts: tuple[Verdict, ...] = Field((), max_length=20)
    override: Text = Field("", description="name of the gate that is overridden")


class Decision(_Record):
    """What was decided about a promotion: the entry of the audit log. Never changed or deleted."""

    promotion: Promotion
    outcome: Literal["accepted", "refused"]
    why: str = ""
    release: Hash = Field("", description="the release under the label afterwards")
    version: str = ""
    previous: Hash = ""
    previous_version: str = ""
    change: int = Field(0, description="the label's change that this is; 0 if refused")
    decided_at: TimeUs = 0

    @property
    def wanted_version(self) -> str:
        """The version under the label afterwards; of a refused promotion the one it asked for."""
        return self.promotion.version if self.outcome == "refused" else self.version


class Entry(_Record):
    """A release by its hash and version."""

    release: Hash
    version: str


class LabelHead(_Record):
    """What a label names now."""

    release: Hash
    version: str
    change: int = Field(description="1 for the label's first release; each change adds one")
    by: str = ""
    at: TimeUs = 0
    earlier: tuple[Entry, ...] = Field((), description="releases to roll back to, the newest last")


class ReleaseHead(_Record):
    """The labels of an agent."""

    agent: str
    labels: dict[str, LabelHead] = Field(default_factory=dict)

    @property
    def changes(self) -> int:
        """The changes of all labels: later records have more."""
        return sum(label.change for label in self.labels.values())


def required_gates(
    policies: Iterable[Policy], agent: str, version: str, label: str
) -> dict[str, str]:
    """The gates that a promotion has to pass, each with the policy that requires it.

    Of a policy's ``match`` only agent and version are compared: a release has no project yet.
    """
    found: dict[str, str] = {}
    for policy in sorted(policies, key=lambda one: one.name):
        rule = policy.promotion
        if (
            rule is not None
            and label in rule.labels
            and policy.match.matches_release(agent, version)
        ):
            found.setdefault(rule.gate, policy.name)
    return found


def decide(
    promotion: Promotion,
    head: ReleaseHead | None,
    known: dict[str, str],
    gates: dict[str, str],
    now_us: int,
) -> Decision:
    """Decide about a promotion; the same inputs give the same decision.

    ``known`` has the version of each published release of the agent by its hash, ``gates`` what
    ``required_gates`` returned.
    """
    labels = {} if head is None else head.labels
    current = labels.get(promotion.label)
    target, why = _target(promotion, current, known, len(labels))
    if now_us - promotion.at > MAX_AGE_US:
        why = "the command is older than an hour: send it again"
    if not why and promotion.action == "promote":
        why = gate_refusal(promotion.verdicts, promotion.override, promotion.reason, gates)
    previous, version = ("", "") if current is None else (current.release, current.version)
    if why or target is None:
        return Decision(
            promotion=promotion,
            outcome="refused",
            why=why,
            release=previous,
            version=version,
            previous=previous,
            previous_version=version,
            decided_at=now_us,
        )
    return Decision(
        promotion=promotion,
        outcome="accepted",
        release=target.release,
        version=target.version,
        previous=previous,
        previous_version=version,
        change=promotion.expected + 1,
        decided_at=now_us,
    )


def _target(
    promotion: Promotion, current: LabelHead | None, known: dict[str, str], labels: int
) -> tuple[Entry | None, str]:
    """The release that the label should name, or why it cannot."""
    change = 0 if current is None else current.change
    if promotion.expected != change:
        return None, _changed_meanwhile(promotion, current)
    if current is None and labels >= MAX_LABELS:
        return None, f"{promotion.agent} has {MAX_LABELS} labels already"
    if promotion.action == "rollback":
        return _earlier(promotion, current)
    if promotion.release not in known:
        shown = promotion.version or promotion.release[:SHOWN_HASH]
        return None, f"there is no release {promotion.agent}@{shown}: publish it first"
    if current is not None and current.release == promotion.release:
        return None, f"{promotion.label} is {current.version} already"
    return Entry(release=promotion.release, version=known[promotion.release]), ""


def _changed_meanwhile(promotion: Promotion, current: LabelHead | None) -> str:
    now = "none" if current is None else f"{current.version} (change {current.change})"
    by = f", changed by {current.by}" if current is not None and current.by else ""
    return (
        f"{promotion.label} of {promotion.agent} was changed meanwhile: it is {now}{by}, and the "
        f"command expected change {promotion.expected}"
    )


def _earlier(promotion: Promotion, current: LabelHead | None) -> tuple[Entry | None, str]:
    earlier = () if current is None else current.earlier
    if not earlier:
        return None, f"{promotion.label} of {promotion.agent} has no earlier release"
    if not promotion.release:
        return earlier[-1], ""
    found = next((one for one in reversed(earlier) if one.release == promotion.release), None)
    if found is None:
        names = ", ".join(dict.fromkeys(one.version for one in reversed(earlier)))
        shown = promotion.version or promotion.release[:SHOWN_HASH]
        return None, f"{shown} is no earlier release of {promotion.label} (it was: {names})"
    return found, ""


def gate_refusal(
    verdicts: Sequence[Verdict], override: str, reason: str, gates: dict[str, str]
) -> str:
    """Why the gates do not let a promotion pass; empty where they do."""
    given = {verdict.gate: verdict for verdict in verdicts}
    for gate, policy in gates.items():
        verdict = given.get(gate)
        if verdict is not None and verdict.outcome == "pass":
            continue
        if override == gate:
            if reason.strip():
                continue
            return f"an override of the gate {gate} needs a reason"
        return f"policy {policy} requires the gate {gate}: {_unpassed(verdict)}"
    return ""


def _unpassed(verdict: Verdict | None) -> str:
    if verdict is None:
        return "it was not asked"
    detail = f": {verdict.detail}" if verdict.detail else ""
    if verdict.outcome == "missing":
        return verdict.detail or "no package has registered it"
    return f"it failed{detail}" if verdict.outcome == "fail" else f"it was inconclusive{detail}"


def head_after(head: ReleaseHead | None, decision: Decision) -> ReleaseHead:
    """The labels after a decision; unchanged by a refusal."""
    promotion = decision.promotion
    labels = {} if head is None else dict(head.labels)
    if decision.outcome == "accepted":
        labels[promotion.label] = LabelHead(
            release=decision.release,
            version=decision.version,
            change=decision.change,
            by=promotion.by[:MAX_SHOWN_BY],
            at=decision.decided_at,
            earlier=_earlier_after(labels.get(promotion.label), decision),
        )
    return ReleaseHead(agent=promotion.agent, labels=labels)


def _earlier_after(current: LabelHead | None, decision: Decision) -> tuple[Entry, ...]:
    if current is None:
        return ()
    if decision.promotion.action == "promote":
        left = Entry(release=current.release, version=current.version)
        return (*current.earlier, left)[-MAX_EARLIER:]
    # A rollback removes what it passes: the next one goes further back instead of forth again.
    places = [n for n, one in enumerate(current.earlier) if one.release == decision.release]
    return current.earlier[: places[-1]]


def decode_promotion(value: bytes | str) -> Promotion:
    """The command in a record. Raises ``ValueError``."""
    return _decoded(Promotion, value)


def decode_decision(value: bytes | str) -> Decision:
    """The decision in a record. Raises ``ValueError``."""
    return _decoded(Decision, value)


def decode_head(value: bytes | str) -> ReleaseHead:
    """The labels in a record. Raises ``ValueError``."""
    return _decoded(ReleaseHead, value)


def _decoded(kind: type[Kind], value: bytes | str) -> Kind:
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"not a {kind.__name__}: {where} {first['msg']}".strip()) from None
