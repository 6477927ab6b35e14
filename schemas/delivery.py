"""Deliveries: how each alert stands with each subscription. The records of the deliveries topic.

The key is ``subscription|alert_id``; a record lies on the partition that its alert has on the alerts topic. The newest one
says how it stands; every record is a line of the delivery log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.alert import Alert, AlertState, AlertStruct, Severity
from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import TimeUs

DeliveryState = Literal["pending", "failed", "delivered", "parked", "grouped", "silenced"]
DELIVERY_STATES: Final[tuple[str, ...]] = get_args(DeliveryState)


class Delivery(BaseModel):
    """One alert and one subscription: what is to be told, what was told, and what became of the last try.

    ``pending``: it waits (grouping, quiet hours, rate limit, silence). ``failed``: the last try failed and ``next_try`` is
    the next. ``delivered``: the channel took it. ``parked``: given up, ``reason`` says why. ``grouped``: it is not told by
    itself, because it is part of an incident, which ``reason`` names. ``silenced``: it was over before its silence was, so
    nobody is told.
    """

    model_config = ConfigDict(extra="ignore")

    subscription: str
    alert_id: str
    seq: int = Field(description="the change of the alert that this is about")
    state: DeliveryState
    time: TimeUs = Field(description="when this was written")
    channel: str = Field("", description="webhook, slack ...")
    notification_id: str = Field(
        "", description="idempotency key: the same content has the same key at every try"
    )
    group: str = Field("", description="the group that it is told with")
    attempts: int = Field(0, description="tries so far; the last one included")
    next_try: TimeUs = Field(0, description="when it is tried next; 0: it is not")
    since: TimeUs = Field(0, description="since when it waits to be told")
    reason: str = Field(
        "",
        description="why it is not told: the channel's answer, secrets removed, what it waits for, or what it is part of",
    )
    latency_us: int = Field(
        0, description="from the alert's append to the channel's yes; 0 while it is not delivered"
    )
    told_seq: int = Field(0, description="newest change that the channel took; 0: none yet")
    told_state: AlertState | Literal[""] = ""
    told_severity: Severity | Literal[""] = ""
    told_at: TimeUs = 0
    alert: str = Field("", description="the alert's name")
    project: str = ""
    environment: str = ""
    agent: str = ""
    severity: Severity = "warning"
    alert_state: AlertState = "firing"
    record: Alert | None = Field(
        None, description="the alert as last seen, while there may be more to tell about it"
    )


def delivery_key(subscription: str, alert_id: str) -> str:
    """The key on the deliveries topic."""
    return f"{subscription}|{alert_id}"


if TYPE_CHECKING:
    DeliveryStruct: TypeAlias = Delivery
else:
    DeliveryStruct = derive_struct(Delivery, nested={Alert: AlertStruct})
