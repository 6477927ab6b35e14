"""Where a running ``stepstream up`` is to be found: ``endpoints.json`` in the state folder.

Written once everything answers, removed at a clean stop; what a dead process left behind does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from stepstream.embedded.process import Identity, identity_of

FILE_NAME: Final = "endpoints.json"


@dataclass(frozen=True)
class Endpoints:
    """Addresses, and the process that holds them open."""

    kafka: str
    clickhouse: str
    pid: int
    began: str = ""
    """When the process began, as this platform tells it; with the pid it names one process for ever."""
    started_at: str = ""
    """UTC, ISO 8601."""
    data_dir: str = ""
    topic_prefix: str = ""
    clickhouse_database: str = ""
    others: dict[str, str] = field(default_factory=dict)
    """Further addresses by name: metrics, admin."""


def write(state_dir: Path, found: Endpoints) -> None:
    """Whole or not at all, for this user's eyes only."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = state_dir / f"{FILE_NAME}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(found), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, state_dir / FILE_NAME)


def read(state_dir: Path) -> Endpoints | None:
    """The addresses of a running ``up``; None where none runs."""
    try:
        held = json.loads((state_dir / FILE_NAME).read_text())
        found = Endpoints(**{name: value for name, value in held.items() if name in Endpoints.__dataclass_fields__})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if _runs(found) else None


def remove(state_dir: Path, pid: int) -> None:
    """Forget what process ``pid`` wrote; another's stays."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((state_dir / FILE_NAME).read_text())["pid"] == pid:
            (state_dir / FILE_NAME).unlink()


def _runs(found: Endpoints) -> bool:
    known = identity_of(found.pid)
    if known is None:
        return not found.began  # this platform does not tell: believe the file
    return not found.began or known == Identity(found.pid, found.began)
