"""Sessions that were signed out: a copy of their cookie is not accepted, also after a restart."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from stepstream.common.web.credentials import write_private

FILE_NAME: Final = "console-signed-out.json"
MAX_KEPT: Final = 10_000
"""Above it the sessions that would expire first are forgotten."""


class SignedOut:
    """The sessions that people have ended before their time, until they would have expired."""

    def __init__(self, folder: Path | None) -> None:
        """Kept in a file of the folder; without one in memory only."""
        self._file = None if folder is None else folder / FILE_NAME
        self._lock = threading.Lock()
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._load()

    def __contains__(self, session: str) -> bool:
        return session in self._until_s

    def add(self, session: str, until_s: float, now_s: float) -> None:
        """Refuse the session from now on. Raises ``OSError`` where the file cannot be written."""
        with self._lock:
            self._until_s[session] = until_s
            for one, until in sorted(self._until_s.items(), key=lambda item: item[1]):
                if until > now_s and len(self._until_s) <= MAX_KEPT:
                    break
                del self._until_s[one]
            if self._file is not None:
                write_private(self._file, json.dumps(self._until_s))

    def _load(self) -> None:
        if self._file is None:
            return
        try:
            stored = json.loads(self._file.read_text())
            self._until_s.update((str(one), float(until)) for one, until in stored.items())
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, TypeError):
            # Nothing is accepted because of it: a session that it had named expires by itself.
            return
