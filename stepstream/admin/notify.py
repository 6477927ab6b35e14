"""``stepstream notify``: the notifier with its API and monitor, and the actions of the API."""

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
    """Run a notifier until it gets a signal. Returns the exit code."""
    return service.run(settings, parts=_parts)


def _parts(notifier: service.Notifier) -> list[Any]:
    """What runs in the notifier's process."""
    settings = notifier.settings
    found: list[Any] = [MonitorThread(notifier)]
    # -1 turns the API off; 0 takes a free port.
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
    """The operations of the API on documents and alerts."""
    return Actions(
        apply=lambda subscription: add(settings, subscription),
        remove=lambda name: remove(settings, name),
        alert=lambda alert_id, action, data: act(settings, alert_id, action, data),
    )


def act(settings: Settings, alert_id: str, action: str, data: dict[str, Any]) -> dict[str, Any]:
    """Acknowledge, silence (``for``) or resolve an alert. Returns the alert afterwards.

    ``data`` has ``by``, the person. Raises ``LookupError`` if there is no such alert,
    ``ValueError`` if the request is invalid or no worker has applied it.
    """
    by = str(data.get("by") or "")
    if not by:
        raise ValueError('the person is missing: send {"by": "ada"}')
    until_us = 0
    if action == "silence":
        now_us = time.time_ns() // 1_000
        until_us = now_us + parse_duration_us(data.get("for", "1h"))
    alert = find_alert(settings, alert_id)
    if alert is None:
        raise LookupError(f"no alert, or more than one, has an id that begins with {alert_id}")
    try:
        return alert_actions.act(
            settings, alert, ACTIONS[action], by=by, until_us=until_us
        ).model_dump(mode="json")
    except alert_actions.NotTaken as error:
        raise ValueError(str(error)) from None


def add(settings: Settings, subscription: Subscription, *, force: bool = False) -> str:
    """Put a subscription in force. Returns ``created``, ``changed`` or ``unchanged``.

    Raises ``ValueError`` if a watched folder owns it, unless ``force`` is set.
    """
    from pathlib import Path

    written = documents.Written(subscription, Place(Path(subscription.name), 0))
    existing = documents.in_force(settings).get(document_key(subscription))
    if existing is not None and existing.owner and not force:
        raise ValueError(
            f"{existing.key} is owned by {existing.owner}: change it there, or use --force"
        )
    # Forced, because the owner was checked above with a message of its own.
    changes = documents.apply(settings, [written], force=True)
    return changes[0].what


def remove(settings: Settings, name: str, *, force: bool = False) -> None:
    """Remove a subscription.

    Raises ``LookupError`` if there is none, ``ValueError`` if a watched folder owns it, unless
    ``force`` is set.
    """
    known = documents.in_force(settings)
    existing = known.get(f"subscription/{name}")
    if existing is None:
        names = [one.name for one in known.values() if one.kind == "Subscription"]
        raise LookupError(f"there is no subscription {name}; {did_you_mean(name, names)}")
    if existing.owner and not force:
        raise ValueError(
            f"{existing.key} is owned by {existing.owner}: remove it there, or use --force"
        )
    documents.withdraw(settings, existing.key)
