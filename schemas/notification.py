"""Notifications: what a webhook or a program gets, version ``stepstream.notification/1``. Fields are only ever added."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.alert import Alert, AlertState, Severity


class NotifiedAlert(Alert):
    """An alert in a notification: its record, its words cut and cleared of secrets as the subscription wants it."""

    command: str = Field("", description="the command that shows more")
    link: str = Field("", description="the subscription's link_template filled in")
    times: dict[str, str] = Field(
        default_factory=dict,
        description="opened_at, updated_at ... as ISO 8601 in UTC, beside the fields in microseconds",
    )


class Notification(BaseModel):
    """What is told at once. ``id`` is the idempotency key: what has the same key has the same body."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)

    version: Literal["stepstream.notification/1"] = Field(
        "stepstream.notification/1", alias="schema"
    )
    id: str
    subscription: str
    state: AlertState = Field(description="firing while anything of the group fires")
    severity: Severity = Field(description="the gravest of the alerts")
    why: Literal["news", "repeat"] = "news"
    group: str = ""
    labels: dict[str, str] = Field(
        default_factory=dict, description="the fields that make the group"
    )
    firing: int = Field(0, description="alerts of the group that fire")
    resolved: int = Field(0, description="alerts told here that have ended")
    title: str = ""
    text: str = ""
    alerts: list[NotifiedAlert] = Field(description="what is told, the gravest first")
    others: list[str] = Field(
        default_factory=list, description="alerts of the group that still fire and were told before"
    )
