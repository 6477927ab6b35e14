"""How findings are made: one constructor for all stages. Pure."""

from __future__ import annotations

from typing import Any, Final

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.ids import derived_id

PIPELINE_PROJECT: Final = "stepstream"
"""The project of findings about Stepstream's own processes."""
_LABELS: Final = (
    "project",
    "environment",
    "agent",
    "agent_version",
    "task",
    "user_id",
    "trace_id",
    "alert",
    "rule",
    "policy",
    "subject",
)


def new_finding(about: object, finding_id: str, time_us: int, **facts: Any) -> FindingStruct:
    """A finding with the labels of ``about`` (a run's identity, an alert) and these facts.

    A label that ``about`` lacks is empty unless ``facts`` has it.
    """
    # Fields are copied by name, so that a run's identity, an alert and a firing window all serve.
    labels = {name: getattr(about, name) for name in _LABELS if hasattr(about, name)}
    return FindingStruct(**(labels | {"finding_id": finding_id, "time": time_us} | facts))


def pipeline_finding(
    alert: str,
    rule: str,
    subject: str,
    message: str,
    now_us: int,
    *,
    names: tuple[str | int, ...],
    **facts: Any,
) -> FindingStruct:
    """A finding about a process of the pipeline itself.

    ``names`` make its id: two processes that find the same write one finding.
    """
    return new_finding(
        None,
        derived_id(*names),
        now_us,
        # Facts of the caller replace these, for example the severity.
        **(
            {
                "project": PIPELINE_PROJECT,
                "alert": alert,
                "rule": rule,
                "severity": "error",
                "subject": subject,
                "message": message,
            }
            | facts
        ),
    )
