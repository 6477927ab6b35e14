"""Notifications in words: what, where, how bad, since when, evidence, and where to look. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from stepstream.schemas.alert import TIME_FIELDS, AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.formatting import format_dollars, format_duration
from stepstream.schemas.texts import fill
from stepstream.schemas.times import iso_time
from stepstream.sinks.notify.channels.escape import shortened
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.quoting import FULL_CHARS, NAME_CHARS, cut, texts_of, written_time

SCHEMA: Final = "stepstream.notification/1"
SAMPLE: Final = "test"
"""The name and the rule of the alert that ``subscriptions test`` sends."""
SHOWN: Final = 10
_TITLE_CHARS: Final = 250
Escape = Callable[[str], str]
_OURS: Final = frozenset(
    {
        "baseline",
        "count",
        "duration",
        "firing",
        "link",
        "resolved",
        "runs",
        "severity",
        "since",
        "state",
        "threshold",
        "value",
    }
)
"""Values that nobody else has written: words of a fixed list, numbers, times, and the link, whose fields are quoted."""
_LONGEST: Final = {
    **dict.fromkeys(
        ("agent", "agent_version", "environment", "project", "subject", "task"), NAME_CHARS
    ),
    "who": 3 * NAME_CHARS,
}
_INTERNAL: Final = ("finding_ids", "opened_by", "source_partition", "source_offset")


@dataclass(frozen=True)
class Message:
    """A notification for people."""

    title: str
    body: str
    link: str


def message(
    notification: Notification, subscription: Subscription, escape: Escape = str
) -> Message:
    """Title and text, by the subscription's own templates where it has some.

    What agents may have written goes through ``escape``, which makes it plain in the channel's markup.
    """
    first = values(notification.alerts[0], notification, subscription, escape)
    title = (
        fill(subscription.template.title, first)
        if subscription.template.title
        else _title(notification, first)
    )
    parts = [
        _part(alert, values(alert, notification, subscription, escape), subscription)
        for alert in notification.alerts[:SHOWN]
    ]
    if (more := len(notification.alerts) - SHOWN) > 0:
        parts.append(f"and {more} more")
    if notification.others:
        parts.append(f"still firing, told before: {notification.firing - _firing(notification)}")
    return Message(
        shortened(" ".join(title.split()), _TITLE_CHARS), "\n".join(parts), first["link"]
    )


def payload(notification: Notification, subscription: Subscription) -> dict[str, Any]:
    """The notification for programs: ``stepstream.notification/1``."""
    words = message(notification, subscription)
    return {
        "schema": SCHEMA,
        "id": notification.id,
        "subscription": notification.subscription,
        "state": notification.state,
        "severity": notification.severity,
        "why": notification.why,
        "group": notification.group,
        "labels": notification.labels,
        "firing": notification.firing,
        "resolved": notification.resolved,
        "title": words.title,
        "text": words.body,
        "alerts": [_record(alert, subscription) for alert in notification.alerts],
        "others": [alert.alert_id for alert in notification.others],
    }


def values(
    alert: AlertStruct, notification: Notification, subscription: Subscription, escape: Escape = str
) -> dict[str, str]:
    """What templates may name, for one alert: on one line each, what is not ours escaped."""
    end_us = alert.resolved_at or alert.updated_at
    texts = texts_of(alert, subscription.content)
    found = {
        "action": alert.action,
        "agent": alert.agent,
        "agent_version": alert.agent_version,
        "alert": alert.alert,
        "alert_id": alert.alert_id,
        "baseline": _amount(alert.baseline, alert.unit),
        "command": command(alert),
        "count": str(len(notification.alerts)),
        "detail": texts["detail"],
        "duration": format_duration(max(0, end_us - alert.opened_at)),
        "environment": alert.environment,
        "evidence": ", ".join(alert.step_ids[:5]),
        "firing": str(notification.firing),
        "link": link(alert, subscription),
        "message": texts["message"] or alert.rule,
        "policy": alert.policy,
        "project": alert.project,
        "quoted": texts["quoted"],
        "resolved": str(notification.resolved),
        "rule": alert.rule,
        "runs": str(getattr(alert, "runs", 0) or 1),
        "severity": alert.severity,
        "since": written_time(alert.opened_at),
        "state": alert.state,
        "subject": alert.subject,
        "task": alert.task,
        "threshold": _amount(alert.threshold, alert.unit),
        "trace_id": alert.trace_id,
        "value": _amount(alert.value, alert.unit),
        "who": who(alert),
    }
    return {
        name: text if name in _OURS else escape(cut(text, _LONGEST.get(name, FULL_CHARS)))
        for name, text in found.items()
    }


def link(alert: AlertStruct, subscription: Subscription) -> str:
    """Where people look further: the subscription's ``link_template`` filled in; empty without one."""
    if not subscription.link_template:
        return ""
    known = {
        "step_id": alert.step_ids[0] if alert.step_ids else "",
        "opened_at_us": str(alert.opened_at),
        "opened_at_ms": str(alert.opened_at // 1000),
        "updated_at_us": str(alert.updated_at),
        "updated_at_ms": str(alert.updated_at // 1000),
    }
    names = (
        "agent",
        "agent_version",
        "alert",
        "alert_id",
        "environment",
        "project",
        "rule",
        "subject",
        "task",
        "trace_id",
    )
    known |= {name: str(getattr(alert, name)) for name in names}
    return fill(subscription.link_template, known, lambda text: quote(text, safe=""))


def command(alert: AlertStruct) -> str:
    """The command that shows more."""
    trace = alert.trace_id or next(iter(getattr(alert, "trace_ids", ())), "")
    return f"stepstream trace {trace}" if trace else f"stepstream alerts show {alert.alert_id}"


def who(alert: AlertStruct) -> str:
    """Whose run it was: ``shop/support/refund (prod, v12)``."""
    names = "/".join(part for part in (alert.project, alert.agent, alert.task) if part)
    more = ", ".join(part for part in (alert.environment, alert.agent_version) if part)
    return f"{names} ({more})" if more else names


def _title(notification: Notification, known: dict[str, str]) -> str:
    alert = notification.alerts[0]
    count = len(notification.alerts)
    if alert.rule == SAMPLE:
        return f"[TEST] {known['message']}"
    label = (
        "RESOLVED"
        if notification.state == "resolved" and alert.state == "resolved"
        else alert.severity.upper()
    )
    head = f"[{label}] {known['alert']} {known['who']}"
    if count > 1:
        fires = f"{notification.firing} firing" if notification.firing else ""
        over = f"{notification.resolved} resolved" if notification.resolved else ""
        return f"{head} and {count - 1} more ({', '.join(part for part in (fires, over) if part)})"
    return f"{head}: {known['message']}"


def _part(alert: AlertStruct, known: dict[str, str], subscription: Subscription) -> str:
    if subscription.template.body:
        return fill(subscription.template.body, known)
    over = f", over after {known['duration']}" if alert.state == "resolved" else ""
    lines = [f"{alert.severity.upper()} {known['alert']} {known['who']}: {known['message']}"]
    numbers = ", ".join(
        f"{name} {text}"
        for name, text in (("limit", known["threshold"]), ("normal", known["baseline"]))
        if text not in ("", "0")
    )
    facts = [
        f"since {known['since']}{over}",
        numbers,
        f"{known['runs']} runs" if known["runs"] != "1" else "",
    ]
    lines.append(" · ".join(part for part in facts if part))
    if known["quoted"]:
        lines.append(f'it said: "{known["quoted"]}"')
    if known["detail"]:
        lines.append(known["detail"])
    if alert.step_ids:
        lines.append(f"evidence: steps {known['evidence']}")
    lines.append(f"look: {known['command']}")
    if known["link"]:
        lines.append(known["link"])
    return "\n  ".join(lines)


def _record(alert: AlertStruct, subscription: Subscription) -> dict[str, Any]:
    """An alert as programs get it: the record of the alerts topic, its words as the subscription wants them."""
    names: tuple[str, ...] = alert.__struct_fields__  # type: ignore[attr-defined]
    fields = {name: getattr(alert, name) for name in names if name not in _INTERNAL}
    times = {name: iso_time(fields[name]) for name in TIME_FIELDS if fields[name]}
    words = {"command": command(alert), "link": link(alert, subscription)}
    return {**fields, "times": times, **texts_of(alert, subscription.content), **words}


def _firing(notification: Notification) -> int:
    return sum(alert.state == "firing" for alert in notification.alerts)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    match unit:
        case "usd":
            return format_dollars(value)
        case "us":
            return format_duration(value)
        case "ratio":
            return f"{value:.1%}"
        case _:
            return f"{value:g}" if unit in ("", "count") else f"{value:g} {unit}"
