"""A notifier of an installation of its own: settings, subscriptions, alerts, and its process."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from stepstream.admin import documents, notify
from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.common import kafka
from stepstream.common.web.credentials import SCOPES, Credentials, new_credential, save, token_of
from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.support.processes import PATIENCE, Process


@cache
def admin_access() -> tuple[Path, dict[str, str]]:
    """A credential file with one caller who may do everything, and the header by which it is
    known."""
    entry, secret = new_credential("tests", SCOPES)
    file = Path(mkdtemp(prefix="stepstream-notify-")) / "credentials.json"
    save(file, Credentials([entry]))
    return file, {"Authorization": f"Bearer {token_of('tests', secret)}"}


def prepared(bootstrap: str, prefix: str, **more: Any) -> Settings:
    """Settings of a separate installation, its topics made."""
    given: dict[str, Any] = {
        "fleet_partitions": 2,
        # Receivers of the tests are on 127.0.0.1, which is refused by default.
        "notify_allow_private": True,
        # The shortest that the broker grants: a killed notifier's partitions are free after it.
        "session_timeout": 6,
        "log_level": "info",
    }
    given["credentials_file"] = str(admin_access()[0])
    settings = Settings(kafka_brokers=bootstrap, topic_prefix=prefix, **(given | more))
    create_topics(settings, timeout=TIMEOUT_S * PATIENCE)
    return settings


def subscribe(settings: Settings, name: str, url: str, **fields: Any) -> Subscription:
    """Put a webhook subscription in force."""
    document = Subscription.model_validate({"name": name, "to": {"webhook": {"url": url}}} | fields)
    notify.add(settings, document)
    assert f"subscription/{name}" in documents.in_force(settings)
    return document


def notifier(settings: Settings, log: Path) -> Process:
    """A notifier in a process of its own."""
    return Process("stepstream", settings, log, "notify")


class Publisher:
    """Writes alerts as the alert stage does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = kafka.producer(settings)

    def send(self, alert_id: str, seq: int = 1, *, partition: int = 0, **fields: Any) -> Alert:
        """One record; ``flush`` waits for it."""
        now = time.time_ns() // 1_000
        known: dict[str, Any] = {
            "alert_id": alert_id, "seq": seq, "state": "firing", "severity": "warning",
            "alert": "loop", "rule": "loop",
            "project": "shop", "agent": "support", "message": "same call 5 times", "opened_at": now,
            "updated_at": now,
        }  # fmt: skip
        alert = Alert.model_validate(known | fields)
        name = topic(self._settings.topic_prefix, "alerts")
        while True:
            try:
                self._producer.produce(
                    name,
                    alert.model_dump_json().encode(),
                    key=alert_id.encode(),
                    partition=partition,
                )
                break
            # The client's queue is full; it empties while it is polled.
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        return alert

    def flush(self) -> None:
        """Everything is acknowledged."""
        assert self._producer.flush(30) == 0

    def close(self) -> None:
        self._producer.close()
