"""Findings, alerts and commands: what the system reports about a run, and what it sends to it.

A detector's observation is a ``Finding``. The alert stage groups findings and alone writes
``Alert`` records. A ``Command`` asks running agents to warn, pause, resume or stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import TimeUs

Severity = Literal["info", "warning", "error", "critical"]
FindingSeverity = Literal["note", "info", "warning", "error", "critical"]
"""A ``note`` is stored and shown with its run; it never opens or changes an alert, so no
subscription delivers it."""
SEVERITIES: Final[tuple[str, ...]] = ("info", "warning", "error", "critical")
FindingState = Literal["firing", "resolved", "acknowledged", "silenced", "marked"]
AlertState = Literal["firing", "resolved"]
AlertChange = Literal[
    "opened", "worse", "updated", "acknowledged", "silenced", "reopened", "resolved"
]
CommandAction = Literal["warn", "pause", "resume", "stop"]
Unit = Literal["", "usd", "tokens", "steps", "us", "ratio", "count"]


class Finding(BaseModel):
    """What a detector found in a run, or what a person did with an alert.

    ``finding_id`` is derived from the log.
    """

    model_config = ConfigDict(extra="ignore")

    finding_id: str
    state: FindingState = Field(
        "firing",
        description="resolved: the problem that this finding reported has ended; marked: a person "
        "stated whether the alert was right, in value 1 or 0",
    )
    time: TimeUs = Field(description="log time at which it was seen")
    project: str
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    trace_id: str = ""
    alert: str = Field(description="the rule's name as people know it, e.g. too-expensive")
    rule: str = Field(description="the rule that was evaluated, e.g. run_cost")
    policy: str = Field("", description="the policy that asked; empty for the built-in one")
    severity: FindingSeverity = Field("warning", description="a note opens no alert")
    subject: str = Field(
        "",
        description="what within the run it is about: a tool, a step, a model; empty for the run",
    )
    step_ids: list[str] = Field(
        default_factory=list, description="evidence, at most 20, oldest first"
    )
    value: float | None = None
    threshold: float | None = None
    unit: Unit = ""
    baseline: float | None = Field(None, description="what is normal here")
    baseline_runs: int = Field(0, description="runs that the baseline was learnt from")
    message: str = Field(
        "",
        description="what is wrong: names and numbers, never text from a step's contents",
    )
    quoted: str = Field(
        "",
        description="text from a step, such as a tool's error message; empty where it quotes none",
    )
    detail: str = Field("", description="the likely cause, where the data shows it")
    running: bool = Field(False, description="the run had not ended")
    run_steps: int = Field(
        0, description="steps of the run when it was found; 0: not about one run, or not recorded"
    )
    action: str = Field("", description="warn, pause or stop where an enforcing policy requests it")
    by: str = Field("", description="who acknowledged, silenced or resolved")
    until: TimeUs = Field(0, description="end of a silence")
    alert_id: str = Field(
        "", description="the alert that is acknowledged, silenced or resolved, and no later one"
    )
    alert_seq: int = Field(
        0, description="with alert_id: only if the alert has not changed since this seq; 0: any"
    )
    withdrawn: bool = Field(
        False, description="with resolved: later steps contradict what was found"
    )
    policy_revision: int = Field(
        0, description="revision of the policy that was evaluated; 0: none, or not recorded"
    )


TIME_FIELDS: Final = ("opened_at", "updated_at", "resolved_at", "silenced_until")
"""The fields of an alert that are moments, in microseconds since 1970; 0 where there is none."""


class Alert(BaseModel):
    """Findings about the same project, agent, run and subject.

    Its record is published again with each change; consumers drop repeats by (alert_id, seq).
    """

    model_config = ConfigDict(extra="ignore")

    alert_id: str = Field(description="uuid5 of the group and the time it opened")
    seq: int = Field(description="1 for the first record, one more for each change")
    change: AlertChange = Field("updated", description="what this record changed")
    state: AlertState
    severity: Severity
    alert: str
    rule: str
    policy: str = ""
    project: str
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    trace_id: str = ""
    subject: str = ""
    step_ids: list[str] = Field(default_factory=list)
    value: float | None = None
    threshold: float | None = None
    unit: Unit = ""
    baseline: float | None = None
    baseline_runs: int = 0
    message: str = ""
    quoted: str = ""
    detail: str = ""
    running: bool = False
    run_steps: int = Field(
        0, description="steps of the run at the newest finding; 0: not about one run"
    )
    findings: int = Field(1, description="findings merged into it")
    opened_at: TimeUs
    updated_at: TimeUs
    resolved_at: TimeUs = 0
    acknowledged_by: str = ""
    silenced_until: TimeUs = 0
    by: str = Field("", description="who acknowledged, silenced or resolved it last")
    reopened: int = Field(0, description="times it came back within the flap window")
    runs: int = Field(
        0, description="of an incident: runs that were hit; 0 for an alert about one run, or none"
    )
    trace_ids: list[str] = Field(
        default_factory=list, description="of an incident: the first and the newest of its runs"
    )
    incident_id: str = Field(
        "", description="the incident that this alert about one run is part of"
    )
    action: str = ""
    finding_ids: list[str] = Field(
        default_factory=list, description="newest merged findings, at most 64"
    )
    opened_by: str = Field("", description="the finding that opened it, and its offset: id@offset")
    opened_offset: int = Field(
        -1, description="offset of the finding that opened it; -1: an older worker opened it"
    )
    withdrawn: bool = Field(
        False, description="resolved because later steps contradict what was found"
    )
    source_partition: int = Field(
        -1, description="partition of the findings topic that it is made from"
    )
    source_offset: int = Field(
        -1, description="offset of the last finding merged; a replay below it changes nothing"
    )
    policy_revision: int = Field(
        0, description="revision of the policy that was evaluated; 0: none, or not recorded"
    )


class Command(BaseModel):
    """A command to running agents.

    To one run (``trace_id``) or to all runs of a project or agent until ``expires``.
    """

    model_config = ConfigDict(extra="ignore")

    command_id: str
    action: CommandAction
    time: TimeUs
    project: str = "default"
    environment: str = Field(
        "", description="of a scope command: only runs of this one; empty: of any"
    )
    agent: str = Field("", description="of a scope command: only runs of this one; empty: of any")
    trace_id: str = Field("", description="the run that is meant; empty: a scope command")
    reason: str = ""
    alert_id: str = ""
    finding_id: str = ""
    by: str = Field("", description="policy:<name>, or who sent it")
    expires: TimeUs = Field(
        0, description="0: the run's end; a scope command binds runs that start before then"
    )
    budget_usd: str = Field("", description="with resume: what a person approved on top")


if TYPE_CHECKING:
    FindingStruct: TypeAlias = Finding
    AlertStruct: TypeAlias = Alert
    CommandStruct: TypeAlias = Command
else:
    FindingStruct = derive_struct(Finding)
    AlertStruct = derive_struct(Alert)
    CommandStruct = derive_struct(Command)
