"""``stepstream notify``: the notifier with what runs beside it, and the actions of its admin API."""

from __future__ import annotations

import time
from typing import Any, Final

from stepstream.admin import alert_actions, documents
from stepstream.admin.alert_actions import find_alert
from stepstream.admin.yamlfile import Place
from stepstream.common.listen import explained
from stepstream.schemas import metrics
from stepstream.schemas.alert_actions import Action
from stepstream.schemas.documents import Subscription, document_key
from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.settings import Settings
from stepstream.schemas.suggestions import did_you_mean
from stepstream.sinks.notify import service
from stepstream.sinks.notify.api import Actions, Api, ApiServer
from stepstream.sinks.notify.monitor_thread import MonitorThread

ACTIONS: Final[dict[str, Action]] = {
    "acknowledge": "acknowledged",
    "silence": "silenced",
    "resolve": "resolved",
}


def run(settings: Settings) -> int:
    """Run a notifier until it is told to stop; returns the exit code."""
    return service.run(settings, parts=_parts)


def _parts(notifier: service.Notifier) -> list[Any]:
    """What runs beside the notifier."""
    settings = notifier.settings
    found: list[Any] = [MonitorThread(notifier)]
    if settings.notify_port >= 0:
        api = Api(settings, notifier.subscriptions, notifier.context, actions(settings))
        try:
            found.append(ApiServer(api, settings.notify_port, notifier.metrics.observer))
        except OSError as error:
            raise explained(error, settings.notify_port, "notify_port") from None
        observer = notifier.metrics.observer
        observer.before_scrape(lambda: observer.gauge(metrics.NOTIFY_STREAMS).set(api.streams.open))
    return found


def actions(settings: Settings) -> Actions:
    """What the admin API does to documents and alerts."""
    return Actions(
        apply=lambda subscription: add(settings, subscription),
        remove=lambda name: remove(settings, name),
        alert=lambda alert_id, action, data: act(settings, alert_id, action, data),
    )


def act(settings: Settings, alert_id: str, action: str, data: dict[str, Any]) -> dict[str, Any]:
    """Acknowledge, silence (``for``) or resolve an alert ``by`` somebody; the alert as it is then.

    Raises ``LookupError`` where there is no such alert, ``ValueError`` for what was said wrong or was not taken.
    """
    by = str(data.get("by") or "")
    if not by:
        raise ValueError('say who does it: {"by": "ada"}')
    until_us = 0
    if action == "silence":
        now_us = time.time_ns() // 1_000
        until_us = now_us + parse_duration_us(data.get("for", "1h"))
    alert = find_alert(settings, alert_id)
    if alert is None:
        raise LookupError(f"there is no alert {alert_id}, or several begin so")
    try:
        return alert_actions.act(
            settings, alert, ACTIONS[action], by=by, until_us=until_us
        ).model_dump(mode="json")
    except alert_actions.NotTaken as error:
        raise ValueError(str(error)) from None


def add(settings: Settings, subscription: Subscription, *, force: bool = False) -> str:
    """Put a subscription in force; ``created``, ``changed`` or ``unchanged``. Raises ``ValueError`` for a folder's own."""
    from pathlib import Path

    written = documents.Written(subscription, Place(Path(subscription.name), 0))
    held = documents.in_force(settings).get(document_key(subscription))
    if held is not None and held.owner and not force:
        raise ValueError(f"{held.key} is owned by {held.owner}: change it there, or use --force")
    changes = documents.apply(settings, [written], force=True)
    return changes[0].what


def remove(settings: Settings, name: str, *, force: bool = False) -> None:
    """Take a subscription out of force. Raises ``LookupError`` where there is none, ``ValueError`` for a folder's own."""
    known = documents.in_force(settings)
    held = known.get(f"subscription/{name}")
    if held is None:
        names = [one.name for one in known.values() if one.kind == "Subscription"]
        raise LookupError(f"there is no subscription {name}; {did_you_mean(name, names)}")
    if held.owner and not force:
        raise ValueError(f"{held.key} is held by {held.owner}: remove it there, or say --force")
    documents.withdraw(settings, held.key)
