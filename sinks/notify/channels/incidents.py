"""Systems that keep alerts themselves: Alertmanager, PagerDuty, Opsgenie."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.channels import Alertmanager, Opsgenie, PagerDuty
from stepstream.schemas.documents import Subscription
from stepstream.schemas.printable import printable
from stepstream.sinks.notify.channels import escape
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification, repeat_us
from stepstream.sinks.notify.message import link, message, values
from stepstream.sinks.notify.quoting import texts_of

_PAGERDUTY_TEXT_CHARS: Final = 50_000
_PRIORITIES: Final = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P5"}


def send_alertmanager(
    notification: Notification,
    subscription: Subscription,
    options: Alertmanager,
    kit: ChannelContext,
) -> str:
    """Each alert to ``/api/v2/alerts``. One that fires ends by itself when it is not sent again for three times as long."""
    hold_us = 3 * repeat_us(subscription)
    data = [
        _alertmanager(alert, subscription, options, kit.clock_s() * 1e6 + hold_us)
        for alert in notification.alerts
    ]
    url = f"{kit.secrets.text(options.url).rstrip('/')}/api/v2/alerts"
    return kit.post(url, data, options.timeout)


def _alertmanager(
    alert: AlertStruct, subscription: Subscription, options: Alertmanager, until_us: float
) -> dict[str, Any]:
    labels = {
        "alertname": alert.alert, "severity": alert.severity, "project": alert.project, "environment": alert.environment,
        "agent": alert.agent, "task": alert.task, "rule": alert.rule,
        "subject": alert.subject, "alert_id": alert.alert_id, **options.labels,
    }  # fmt: skip
    # Labels are its identity there: an alert that got worse is another one, and the one before ends by itself.
    texts = texts_of(alert, subscription.content)
    annotations = {
        "summary": escape.apart(texts["message"] or alert.rule),
        "description": escape.apart(
            "\n".join(part for part in (texts["quoted"], texts["detail"]) if part)
        ),
        "trace_id": escape.apart(printable(alert.trace_id)),
    }
    found = {
        "labels": {name: printable(value) for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _rfc3339(alert.opened_at),
        "endsAt": _rfc3339(alert.resolved_at if alert.state == "resolved" else until_us),
    }
    target = link(alert, subscription)
    return found | ({"generatorURL": target} if target else {})


def send_pagerduty(
    notification: Notification, subscription: Subscription, options: PagerDuty, kit: ChannelContext
) -> str:
    """One incident for each group: triggered, triggered again as it changes, resolved when nothing of it fires."""
    url = f"{kit.host('pagerduty-eu' if options.eu else 'pagerduty')}/v2/enqueue"
    key = {
        "routing_key": kit.secrets.text(options.routing_key),
        "dedup_key": f"{subscription.name}/{notification.group}"[:255],
    }
    answer = ""
    if notification.firing or notification.untold:
        answer = kit.post(url, key | _pagerduty(notification, subscription), options.timeout)
    if not notification.firing:
        answer = kit.post(url, key | {"event_action": "resolve"}, options.timeout)
    return answer


def _pagerduty(notification: Notification, subscription: Subscription) -> dict[str, Any]:
    words = message(notification, subscription, escape.apart)
    known = values(notification.alerts[0], notification, subscription, escape.apart)
    return {
        "event_action": "trigger",
        "client": "stepstream",
        "payload": {
            "summary": words.title,
            "source": known["agent"] or known["project"],
            "severity": notification.severity,
            "timestamp": _rfc3339(min(one.opened_at for one in notification.alerts)),
            "component": known["subject"] or known["task"],
            "group": known["project"],
            "class": known["rule"],
            "custom_details": {
                "text": escape.shortened(words.body, _PAGERDUTY_TEXT_CHARS),
                "firing": notification.firing,
                "labels": {
                    name: escape.apart(printable(text))
                    for name, text in notification.labels.items()
                },
            },
        },
        "links": [{"href": words.link, "text": "Look"}] if words.link else [],
    }


def send_opsgenie(
    notification: Notification, subscription: Subscription, options: Opsgenie, kit: ChannelContext
) -> str:
    """One alert for each group, by its alias; closed when nothing of it fires."""
    base = f"{kit.host('opsgenie-eu' if options.eu else 'opsgenie')}/v2/alerts"
    headers = {"Authorization": f"GenieKey {kit.secrets.text(options.api_key)}"}
    alias = f"{subscription.name}-{notification.group}".replace("/", "-")[:512]
    answer = ""
    if notification.firing or notification.untold:
        words = message(notification, subscription, escape.apart)
        known = values(notification.alerts[0], notification, subscription, escape.apart)
        data = {
            "message": escape.shortened(words.title, 130),
            "alias": alias,
            "description": escape.shortened(words.body, 15_000),
            "priority": _PRIORITIES[notification.severity],
            "source": "stepstream",
            "entity": known["agent"],
            "tags": [escape.shortened(known["alert"], 50)],
            "details": {"project": known["project"], "notification_id": notification.id},
            **({"responders": [{"type": "team", "name": options.team}]} if options.team else {}),
        }
        answer = kit.post(base, data, options.timeout, headers)
    if not notification.firing:
        answer = kit.post(
            f"{base}/{quote(alias, safe='')}/close?identifierType=alias",
            {"source": "stepstream"},
            options.timeout,
            headers,
        )
    return answer


def _rfc3339(time_us: float) -> str:
    return (
        datetime.fromtimestamp(time_us / 1e6, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
