"""Everything that crosses a wire or is written by a person: events, trajectories, alerts, documents, topics, prices.

Pure: no I/O. The other rooms meet only here and on Kafka.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from stepstream.schemas.alert import Alert, Command, Finding
from stepstream.schemas.documents import Prices, Subscription
from stepstream.schemas.policy import Policy
from stepstream.schemas.step import Document, StepEvent, TokenUsage
from stepstream.schemas.trajectory import Trajectory, Usage

__all__ = [
    "CONTRACTS",
    "Alert",
    "Command",
    "Document",
    "Finding",
    "Policy",
    "Prices",
    "StepEvent",
    "Subscription",
    "TokenUsage",
    "Trajectory",
    "Usage",
]

CONTRACTS: Final[dict[str, type[BaseModel]]] = {
    model.__name__: model for model in (StepEvent, Trajectory, Usage, Finding, Alert, Command, Policy, Subscription, Prices)
}
"""The public contracts, by name; ``stepstream schema NAME`` prints their JSON Schema."""
