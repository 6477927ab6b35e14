"""Notifications: the JSON for webhooks and programs, version ``stepstream.notification/1``.

Fields are only ever added.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.alert import Alert, AlertState, Severity


class NotifiedAlert(Alert):
    """An alert in a notification: its record, with texts as ``content`` allows."""

    command: str = Field("", description="the command that shows more")
    link: str = Field("", description="the subscription's link_template filled in")
    run_link: str = Field("", description="the page of the alert's run in the console")
    times: dict[str, str] = Field(
        default_factory=dict,
        description="opened_at, updated_at ... as ISO 8601 in UTC",
    )


class Notification(BaseModel):
    """One notification. ``id`` is the idempotency key: the same key always has the same body."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)

    version: Literal["stepstream.notification/1"] = Field(
        "stepstream.notification/1", alias="schema"
    )
    id: str
    subscription: str
    state: AlertState = Field(description="firing while anything of the group fires")
    severity: Severity = Field(description="the highest severity of the alerts")
    why: Literal["news", "repeat"] = "news"
    group: str = ""
    labels: dict[str, str] = Field(
        default_factory=dict, description="the fields that make the group"
    )
    firing: int = Field(0, description="alerts of the group that fire")
    resolved: int = Field(0, description="alerts in this notification that are resolved")
    title: str = ""
    text: str = ""
    alerts: list[NotifiedAlert] = Field(description="the alerts, the most severe first")
    others: list[str] = Field(
        default_factory=list,
        description="ids of alerts of the group that still fire and were sent before",
    )
