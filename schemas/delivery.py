"""Deliveries: the state of each alert in each subscription. The records of the deliveries topic.

The key is ``subscription|alert_id``. A record is on the partition of the same number as its alert.
The newest record of a key is the current state; all of them together are the log of deliveries.
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
    """One alert in one subscription: what is to be delivered, what was, and the last attempt.

    ``pending``: it waits (grouping, quiet hours, rate limit, silence). ``failed``: the last attempt
    failed, the next is at ``next_try``. ``delivered``: the channel accepted it. ``parked``: given
    up, for the ``reason``. ``grouped``: not delivered itself, because it is part of the incident
    that ``reason`` names. ``silenced``: resolved before its silence ended, so it is not delivered.
    """

    model_config = ConfigDict(extra="ignore")

    subscription: str
    alert_id: str
    seq: int = Field(description="the change of the alert that this record is about")
    state: DeliveryState
    time: TimeUs = Field(description="when this was written")
    channel: str = Field("", description="webhook, slack ...")
    notification_id: str = Field(
        "", description="idempotency key: the same content has the same key at every attempt"
    )
    group: str = Field("", description="the group that it is delivered with")
    attempts: int = Field(0, description="attempts so far, the last one included")
    next_try: TimeUs = Field(0, description="when the next attempt is; 0: there is none")
    since: TimeUs = Field(0, description="since when it waits to be delivered")
    reason: str = Field(
        "",
        description="why it is not delivered: the channel's answer without secrets, what it waits "
        "for, or the incident it is part of",
    )
    latency_us: int = Field(
        0, description="from the alert's append to the channel's answer; 0 until it is delivered"
    )
    told_seq: int = Field(0, description="newest change that the channel accepted; 0: none yet")
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
        None, description="the alert as last read, until nothing of it is left to deliver"
    )


def delivery_key(subscription: str, alert_id: str) -> str:
    """The key of a record on the deliveries topic."""
    return f"{subscription}|{alert_id}"


def split_delivery_key(key: str) -> tuple[str, str]:
    """Subscription and alert id of a key."""
    # Names of subscriptions have no |.
    name, _, alert_id = key.partition("|")
    return name, alert_id


if TYPE_CHECKING:
    DeliveryStruct: TypeAlias = Delivery
else:
    DeliveryStruct = derive_struct(Delivery, nested={Alert: AlertStruct})
