"""What people say about an alert, as the finding that says it: acknowledged, silenced, resolved.

Pure.

It goes to the findings topic under the project's key, like everything else that is found, and the
worker alone makes the alert's next record of it: with who and when, and in order with what
detectors see.
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
    """The finding that tells of it.

    Said twice in the same moment it is the same; of another alert of the group it is nothing.

    ``until_us`` is the end of a silence; 0 ends one that there is.
    """
    return new_finding(
        alert,
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
