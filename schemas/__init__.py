"""The contracts: everything that is sent between processes or written by users.

Events, trajectories, alerts, documents, topics, prices. Pure: no I/O. The other packages share only
this one and Kafka. Each contract is built on first use, because the SDK needs only the step event
and its import time is paid by every agent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stepstream.schemas.alert import Alert, Command, Finding
    from stepstream.schemas.criteria import Criteria
    from stepstream.schemas.delivery import Delivery
    from stepstream.schemas.documents import Prices, Subscription
    from stepstream.schemas.fleet import FleetBaseline, FleetBudget, FleetWindow
    from stepstream.schemas.notification import Notification
    from stepstream.schemas.policy import Policy
    from stepstream.schemas.step import Document, StepEvent
    from stepstream.schemas.task_bindings import TaskBinding
    from stepstream.schemas.task_messages import TaskMessage
    from stepstream.schemas.task_queue import Queue
    from stepstream.schemas.task_state import TaskStateRecord
    from stepstream.schemas.trajectory import Progress, RunSummary, Trajectory, Usage
    from stepstream.schemas.usage import TokenUsage

    CONTRACTS: dict[str, type[BaseModel]]
    """The public contracts, by name; ``stepstream schema NAME`` prints their JSON Schema."""

__all__ = [
    "CONTRACTS",
    "Alert",
    "Command",
    "Criteria",
    "Delivery",
    "Document",
    "Finding",
    "FleetBaseline",
    "FleetBudget",
    "FleetWindow",
    "Notification",
    "Policy",
    "Prices",
    "Progress",
    "Queue",
    "RunSummary",
    "StepEvent",
    "Subscription",
    "TaskBinding",
    "TaskMessage",
    "TaskStateRecord",
    "TokenUsage",
    "Trajectory",
    "Usage",
]

_MODULES: Final = {
    "Alert": "alert",
    "Command": "alert",
    "Criteria": "criteria",
    "Delivery": "delivery",
    "Document": "step",
    "Finding": "alert",
    "FleetBaseline": "fleet",
    "FleetBudget": "fleet",
    "FleetWindow": "fleet",
    "Notification": "notification",
    "Policy": "policy",
    "Prices": "documents",
    "Progress": "trajectory",
    "Queue": "task_queue",
    "RunSummary": "trajectory",
    "StepEvent": "step",
    "Subscription": "documents",
    "TaskBinding": "task_bindings",
    "TaskMessage": "task_messages",
    "TaskStateRecord": "task_state",
    "TokenUsage": "usage",
    "Trajectory": "trajectory",
    "Usage": "trajectory",
}
_CONTRACTS: Final = (
    "StepEvent", "Trajectory", "Usage", "RunSummary", "Progress", "Finding", "Alert", "Command",
    "Delivery", "Notification",
    "FleetWindow", "FleetBudget", "FleetBaseline", "Policy", "Subscription", "Prices",
    "Criteria", "TaskMessage", "TaskStateRecord", "TaskBinding",
    "Queue",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "CONTRACTS":
        found: Any = {contract: __getattr__(contract) for contract in _CONTRACTS}
    elif name in _MODULES:
        found = getattr(importlib.import_module(f"stepstream.schemas.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
