"""A folder of documents that is kept in force: applied when a file in it changes, withdrawn when one leaves it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from stepstream.admin.documents import SUFFIXES, Change, DocumentsError, apply, read_documents
from stepstream.admin.topics import TopicsError
from stepstream.common.kafka import KafkaUnreachable
from stepstream.local.children import Say
from stepstream.schemas.settings import Settings

LOOK_S: Final = 2.0
_Fingerprint = tuple[tuple[str, int, int], ...]


class DocumentFolder:
    """Applies the folder when asked to, and again whenever its files differ from the last time."""

    def __init__(self, settings: Settings, folder: Path, say: Say) -> None:
        self._settings = settings
        self._folder = folder
        self._say = say
        self._seen: _Fingerprint | None = None

    def sync(self) -> list[Change]:
        """Put in force what the folder says; what it put there earlier and no longer names is withdrawn.

        Raises ``DocumentsError`` when anything in it is wrong: then nothing changes.
        """
        self._seen = self._fingerprint()
        changes = apply(
            self._settings, read_documents(self._folder), owner=f"folder {self._folder}"
        )
        for change in changes:
            if change.what != "unchanged":
                self._say("documents", f"{change.key} {change.what}")
        return changes

    def watch(self, stopping: threading.Event) -> None:
        """Until told to stop. What is wrong is told once, and tried again after the next change."""
        while not stopping.wait(LOOK_S):
            if self._fingerprint() == self._seen:
                continue
            try:
                self.sync()
            except DocumentsError as error:
                self._say("documents", f"nothing was changed, because\n{error}")
            except (KafkaUnreachable, TopicsError, KafkaException) as error:
                self._seen = None  # tried again at the next look
                self._say("documents", f"{error}")

    def _fingerprint(self) -> _Fingerprint:
        found = []
        for file in sorted(self._folder.rglob("*")):
            try:
                if file.suffix in SUFFIXES:
                    facts = file.stat()
                    found.append((str(file), facts.st_mtime_ns, facts.st_size))
            except OSError:  # it left in this moment
                continue
        return tuple(found)
