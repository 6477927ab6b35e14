"""Notifications as texts for people and as JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from stepstream.schemas.alert import TIME_FIELDS, AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.formatting import format_dollars, format_duration
from stepstream.schemas.texts import fill
from stepstream.schemas.times import iso_time
from stepstream.sinks.notify.escape import shortened
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.quoting import (
    MAX_FULL_CHARS,
    MAX_NAME_CHARS,
    cut,
    format_time,
    texts_of,
)

SCHEMA: Final = "stepstream.notification/1"
SAMPLE: Final = "test"
"""Alert and rule of the notification that ``subscriptions test`` sends."""
MAX_SHOWN: Final = 10
"""Alerts described in a text. Programs get all of them."""
MAX_TITLE_CHARS: Final = 250
Escape = Callable[[str], str]
# Values that are safe in every markup: words of a fixed list, numbers, times, and the link, whose
# fields are URL-encoded. All others may contain what an agent wrote.
_NOT_ESCAPED: Final = frozenset(
    {
        "baseline",
        "count",
        "duration",
        "firing",
        "link",
        "resolved",
        "run_link",
        "runs",
        "severity",
        "since",
        "state",
        "threshold",
        "value",
    }
)
_MAX_CHARS: Final = {
    **dict.fromkeys(
        ("agent", "agent_version", "environment", "project", "subject", "task"), MAX_NAME_CHARS
    ),
    "who": 3 * MAX_NAME_CHARS,
}
_INTERNAL: Final = ("finding_ids", "opened_by", "source_partition", "source_offset")
_LINK_NAMES: Final = (
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


@dataclass(frozen=True)
class Message:
    """A notification as a text. ``link`` is empty without a ``link_template``."""

    title: str
    body: str
    link: str


def message(
    notification: Notification, subscription: Subscription, escape: Escape = str
) -> Message:
    """Title and text, from the subscription's templates or ours.

    ``escape`` is applied to every value that an agent may have written.
    """
    first = values(notification.alerts[0], notification, subscription, escape)
    if subscription.template.title:
        title = fill(subscription.template.title, first)
    else:
        title = _title(notification, first)
    parts = [
        _describe(alert, values(alert, notification, subscription, escape), subscription)
        for alert in notification.alerts[:MAX_SHOWN]
    ]
    if (more := len(notification.alerts) - MAX_SHOWN) > 0:
        parts.append(f"and {more} more")
    if notification.others:
        included = sum(alert.state == "firing" for alert in notification.alerts)
        parts.append(f"still firing, reported before: {notification.firing - included}")
    title = shortened(" ".join(title.split()), MAX_TITLE_CHARS)
    return Message(title, "\n".join(parts), first["link"])


def payload(notification: Notification, subscription: Subscription) -> dict[str, Any]:
    """The notification for programs: ``stepstream.notification/1``."""
    text = message(notification, subscription)
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
        "title": text.title,
        "text": text.body,
        "alerts": [_record(alert, subscription) for alert in notification.alerts],
        "others": [alert.alert_id for alert in notification.others],
    }


def values(
    alert: AlertStruct, notification: Notification, subscription: Subscription, escape: Escape = str
) -> dict[str, str]:
    """The values that templates may name, for one alert: each on one line, shortened, escaped."""
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
        "run_link": run_link(alert, subscription),
        "runs": str(alert.runs or 1),
        "severity": alert.severity,
        "since": format_time(alert.opened_at),
        "state": alert.state,
        "subject": alert.subject,
        "task": alert.task,
        "threshold": _amount(alert.threshold, alert.unit),
        "trace_id": alert.trace_id,
        "value": _amount(alert.value, alert.unit),
        "who": who(alert),
    }
    return {
        name: text
        if name in _NOT_ESCAPED
        else escape(cut(text, _MAX_CHARS.get(name, MAX_FULL_CHARS)))
        for name, text in found.items()
    }


def link(alert: AlertStruct, subscription: Subscription) -> str:
    """The subscription's ``link_template`` with its fields filled in; empty without one."""
    if not subscription.link_template:
        return ""
    known = {name: str(getattr(alert, name)) for name in _LINK_NAMES} | {
        "step_id": alert.step_ids[0] if alert.step_ids else "",
        "opened_at_us": str(alert.opened_at),
        "opened_at_ms": str(alert.opened_at // 1000),
        "updated_at_us": str(alert.updated_at),
        "updated_at_ms": str(alert.updated_at // 1000),
    }
    return fill(subscription.link_template, known, lambda text: quote(text, safe=""))


def run_link(alert: AlertStruct, subscription: Subscription) -> str:
    """The page of the alert's run at its first step of evidence; of an incident, of its first run.

    Empty without a console to link to, and for an alert without a run.
    """
    trace = _trace(alert)
    if not trace or not subscription.console_url:
        return ""
    step = f"?step={quote(alert.step_ids[0], safe='')}" if alert.trace_id and alert.step_ids else ""
    return f"{subscription.console_url}/runs/{quote(trace, safe='')}{step}"


def _trace(alert: AlertStruct) -> str:
    return alert.trace_id or next(iter(alert.trace_ids), "")


def command(alert: AlertStruct) -> str:
    """The command that shows more about the alert."""
    trace = _trace(alert)
    return f"stepstream trace {trace}" if trace else f"stepstream alerts show {alert.alert_id}"


def who(alert: AlertStruct) -> str:
    """The agent and task of the alert: ``shop/support/refund (prod, v12)``."""
    names = "/".join(part for part in (alert.project, alert.agent, alert.task) if part)
    more = ", ".join(part for part in (alert.environment, alert.agent_version) if part)
    return f"{names} ({more})" if more else names


def rfc3339(time_us: float) -> str:
    """A time as services expect it: ``2026-01-01T00:03:00.000Z``."""
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _title(notification: Notification, known: dict[str, str]) -> str:
    alert = notification.alerts[0]
    if alert.rule == SAMPLE:
        return f"[TEST] {known['message']}"
    is_resolved = notification.state == "resolved" and alert.state == "resolved"
    label = "RESOLVED" if is_resolved else alert.severity.upper()
    head = f"[{label}] {known['alert']} {known['who']}"
    if len(notification.alerts) == 1:
        return f"{head}: {known['message']}"
    counts = [
        f"{count} {state}"
        for count, state in ((notification.firing, "firing"), (notification.resolved, "resolved"))
        if count
    ]
    return f"{head} and {len(notification.alerts) - 1} more ({', '.join(counts)})"


def _describe(alert: AlertStruct, known: dict[str, str], subscription: Subscription) -> str:
    """The part of a text about one alert."""
    if subscription.template.body:
        return fill(subscription.template.body, known)
    lines = [
        f"{alert.severity.upper()} {known['alert']} {known['who']}: {known['message']}",
        _facts(alert, known),
        f'quoted: "{known["quoted"]}"' if known["quoted"] else "",
        known["detail"],
        f"evidence: steps {known['evidence']}" if alert.step_ids else "",
        f"details: {known['command']}",
        known["link"],
        f"run: {known['run_link']}" if known["run_link"] else "",
    ]
    return "\n  ".join(line for line in lines if line)


def _facts(alert: AlertStruct, known: dict[str, str]) -> str:
    """``since ..., resolved after ... · limit ..., normal ... · N runs``."""
    resolved = f", resolved after {known['duration']}" if alert.state == "resolved" else ""
    amounts = [
        f"{name} {amount}"
        for name, amount in (("limit", known["threshold"]), ("normal", known["baseline"]))
        if amount not in ("", "0")
    ]
    facts = [
        f"since {known['since']}{resolved}",
        ", ".join(amounts),
        f"{known['runs']} runs" if known["runs"] != "1" else "",
    ]
    return " · ".join(fact for fact in facts if fact)


def _record(alert: AlertStruct, subscription: Subscription) -> dict[str, Any]:
    """An alert for programs: its record, with texts as the subscription's ``content`` allows."""
    names: tuple[str, ...] = alert.__struct_fields__  # type: ignore[attr-defined]
    fields = {name: getattr(alert, name) for name in names if name not in _INTERNAL}
    times = {name: iso_time(fields[name]) for name in TIME_FIELDS if fields[name]}
    added = {
        "command": command(alert),
        "link": link(alert, subscription),
        "run_link": run_link(alert, subscription),
    }
    return {**fields, "times": times, **texts_of(alert, subscription.content), **added}


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
