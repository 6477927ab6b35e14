"""Acknowledging, silencing, resolving and marking an alert: the finding record of each. Pure.

The finding is sent to the findings topic under the project's key, as those of detectors are. The
worker alone makes the alert's next record from it, in the order of the log.
"""

from __future__ import annotations

from typing import Final, Literal

from stepstream.schemas.alert import Alert, Finding
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id

Action = Literal["acknowledged", "silenced", "resolved"]
ACTIONS: Final[tuple[Action, ...]] = ("acknowledged", "silenced", "resolved")


def action_finding(
    alert: Alert, action: Action, *, by: str, now_us: int, until_us: int = 0, message: str = ""
) -> Finding:
    """The finding of an action. It has no effect on a later alert of the same group.

    Two equal actions in the same microsecond have the same id. ``until_us`` is the end of a
    silence; 0 ends a silence.
    """
    return new_finding(
        alert,
        # Another text here would change the ids of actions that are in the log already.
        derived_id("said", alert.alert_id, action, by, until_us, now_us),
        now_us,
        state=action,
        # It is about the alert, not about the user whose run it was.
        user_id="",
        severity="info",
        message=message,
        by=by,
        until=until_us if action == "silenced" else 0,
        alert_id=alert.alert_id,
    )


def mark_finding(alert: Alert, *, right: bool, by: str, now_us: int, message: str = "") -> Finding:
    """The finding by which a person states whether the alert reported a real problem.

    It is a note: it changes no alert, so that alerts of any age can be marked. The newest mark of
    an alert is the one that counts.
    """
    return new_finding(
        alert,
        derived_id("mark", alert.alert_id, right, by, now_us),
        now_us,
        state="marked",
        user_id="",
        severity="note",
        value=float(right),
        message=message,
        by=by,
        alert_id=alert.alert_id,
    )
