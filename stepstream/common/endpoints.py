"""Addresses and logins of a running ``stepstream up``: ``endpoints.json`` in the state directory.

Written when all servers answer and when an address changes, removed at a clean stop; the file of a
dead process is ignored. It contains passwords, so only its owner can read it (mode 0600).
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from stepstream.common.login import Login
from stepstream.common.process import Identity, identity_of

FILE_NAME: Final = "endpoints.json"


@dataclass(frozen=True)
class Endpoints:
    """Addresses, and the process that holds them open."""

    kafka: str
    clickhouse: str
    pid: int
    began: str = ""
    """Start time of the process as the platform reports it; with the pid it is unique."""
    started_at: str = ""
    """UTC, ISO 8601."""
    data_dir: str = ""
    topic_prefix: str = ""
    clickhouse_database: str = ""
    others: dict[str, str] = field(default_factory=dict)
    """Further URLs: ``gateway``, ``notify`` (admin API), ``metrics_worker``, ``metrics_sink``,
    ``metrics_notify``.
    """
    writer: Login = field(default_factory=Login)
    """ClickHouse's user that writes and migrates."""
    reader: Login = field(default_factory=Login)
    """ClickHouse's user that only reads."""
    kafka_login: Login = field(default_factory=Login)
    """The user of the embedded Kafka (SASL PLAIN), where it asks for one."""
    notify_token: str = field(default="", repr=False)
    """Token for the notifier's admin API."""


_LOGINS: Final = ("writer", "reader", "kafka_login")


def write(state_dir: Path, found: Endpoints) -> None:
    """Whole or not at all, for this user's eyes only."""
    from stepstream.common.web.credentials import write_private

    write_private(state_dir / FILE_NAME, json.dumps(asdict(found), indent=1))


def read(state_dir: Path) -> Endpoints | None:
    """The addresses of a running ``up``; None where none runs."""
    try:
        found = _parsed(json.loads((state_dir / FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if _runs(found) else None


def _parsed(content: dict[str, Any]) -> Endpoints:
    known = {one.name for one in fields(Endpoints)}
    # Unknown fields are dropped: another version of stepstream may have written the file.
    values: dict[str, Any] = {name: value for name, value in content.items() if name in known}
    for name in _LOGINS:
        values[name] = Login(**values.get(name, {}))
    return Endpoints(**values)


def remove(state_dir: Path, pid: int) -> None:
    """Forget what process ``pid`` wrote; another's stays."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((state_dir / FILE_NAME).read_text())["pid"] == pid:
            (state_dir / FILE_NAME).unlink()


def _runs(found: Endpoints) -> bool:
    known = identity_of(found.pid)
    if known is None:
        return not found.began  # unknown on this platform: trust the file
    return not found.began or known == Identity(found.pid, found.began)
