"""A folder of documents kept in force: applied when a file changes, withdrawn when it is
removed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from stepstream.admin.documents import SUFFIXES, Change, DocumentsError, apply, read_documents
from stepstream.admin.topics import TopicsError
from stepstream.common.kafka import KafkaUnreachable
from stepstream.local.processes.supervised import Report
from stepstream.schemas.settings import Settings

CHECK_S: Final = 2.0
_Fingerprint = tuple[tuple[str, int, int], ...]


class DocumentFolder:
    """Applies the folder when asked to, and again whenever its files differ from the last time."""

    def __init__(self, settings: Settings, folder: Path, report: Report) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self._seen: _Fingerprint | None = None

    def sync(self) -> list[Change]:
        """Put the folder's documents in force; withdraw those that it no longer contains.

        Raises ``DocumentsError`` when a document is invalid; then nothing changes.
        """
        self._seen = self._fingerprint()
        changes = apply(
            self._settings, read_documents(self._folder), owner=f"folder {self._folder}"
        )
        for change in changes:
            if change.what != "unchanged":
                self._report("documents", f"{change.key} {change.what}")
        return changes

    def watch(self, stopping: threading.Event) -> None:
        """Apply changes until ``stopping`` is set.

        An invalid document is reported once per change.
        """
        while not stopping.wait(CHECK_S):
            if self._fingerprint() == self._seen:
                continue
            try:
                self.sync()
            except DocumentsError as error:
                self._report("documents", f"nothing was changed, because\n{error}")
            except (KafkaUnreachable, TopicsError, KafkaException) as error:
                self._seen = None  # tried again at the next check
                self._report("documents", f"{error}")

    def _fingerprint(self) -> _Fingerprint:
        found = []
        for file in sorted(self._folder.rglob("*")):
            try:
                if file.suffix in SUFFIXES:
                    facts = file.stat()
                    found.append((str(file), facts.st_mtime_ns, facts.st_size))
            except OSError:  # removed at this moment
                continue
        return tuple(found)
