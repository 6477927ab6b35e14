"""Commands to running agents: the runs they apply to, and their control steps in a run.

Command and acknowledgement are one step: it starts when the command reaches the run and ends with
status ``ok`` when it is applied. Its id is derived from run and command, so that it is one step no
matter which process writes it, and how often. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from stepstream.schemas.alert import Command
from stepstream.schemas.ids import derived_id
from stepstream.schemas.money import amount_nanos

CONTROL_KIND: Final = "control"
_APPROVE: Final = "approve $"
BUDGET_ATTRIBUTE: Final = "budget_usd"
"""On an approval: what was approved on top."""


def control_step_id(trace_id: str, command_id: str) -> str:
    """The id of the control step for a command."""
    return derived_id("control", trace_id, command_id).replace("-", "")[-16:]


def dated_by(command: Command, latest_us: int) -> Command:
    """The command with a time that is not after ``latest_us``, when it was written at the latest.

    The sender's clock may be ahead: a resume with a time in the future would override every later
    stop.
    """
    return (
        command if command.time <= latest_us else msgspec.structs.replace(command, time=latest_us)  # type: ignore[type-var]
    )


def is_scope(command: Command) -> bool:
    """Whether it is meant for all runs of a project or agent."""
    return not command.trace_id


def binds(command: Command, *, project: str, environment: str, agent: str, started_us: int) -> bool:
    """Whether a command to a scope applies to such a run: it existed already, or starts before it
    expires.
    """
    return (
        command.project == project
        and command.environment in ("", environment)
        and command.agent in ("", agent)
        and started_us < max(command.expires, command.time)
    )


def name_of(command: Command) -> str:
    """The name of its control step: the action; for a resume with a budget the approval."""
    return (
        f"{_APPROVE}{command.budget_usd}"
        if command.action == "resume" and command.budget_usd
        else str(command.action)
    )


class ControlStep(NamedTuple):
    """Attributes of a control step: the action, and the amount that it approves."""

    action: str
    approved_nanos: int = 0


def control_step(name: str, attributes: Mapping[str, Any]) -> ControlStep:
    """What a step of kind ``control`` reports, by its attributes.

    SDKs that write no attributes put it into the name: ``stop``, or ``approve $5``.
    """
    action = attributes.get("action")
    if isinstance(action, str) and action:
        return ControlStep(action, _nanos(attributes.get(BUDGET_ATTRIBUTE, "")))
    if name.startswith(_APPROVE):
        return ControlStep("resume", _nanos(name.removeprefix(_APPROVE)))
    return ControlStep(name)


def _nanos(amount: Any) -> int:
    if not amount:
        return 0
    try:
        return max(0, amount_nanos(amount))
    except (TypeError, ValueError, ArithmeticError):
        return 0  # not written by an SDK: nothing is approved


def attributes_of(command: Command) -> dict[str, str]:
    """The attributes of its control step: which command, by whom, why."""
    found = {
        "command_id": command.command_id,
        "action": command.action,
        "by": command.by,
        "reason": command.reason,
        "alert_id": command.alert_id,
        "finding_id": command.finding_id,
        BUDGET_ATTRIBUTE: command.budget_usd,
        "scope": "" if command.trace_id else f"{command.project}/{command.agent or '*'}",
    }
    return {key: value for key, value in found.items() if value}
