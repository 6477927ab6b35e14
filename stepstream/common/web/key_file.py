"""A credential file that is read again when it has changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from stepstream.common.web.credentials import Credentials, CredentialsError, load, load_or_none

CHECK_EVERY_S: Final = 2.0
_log = logging.getLogger("stepstream.web")


class KeyFile:
    """The credential file, read again when it has changed, so that rotating a key needs no
    restart.
    """

    def __init__(self, file: str) -> None:
        """Raises ``CredentialsError`` where the file cannot be used."""
        self._path = Path(file).expanduser() if file else None
        self._stamp = self._stamp_now()
        self._checked_s = 0.0
        self.table = load_or_none(file)

    def _stamp_now(self) -> tuple[int, int, int]:
        if self._path is None:
            return (0, 0, 0)
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def refreshed(self, now_s: float) -> Credentials:
        """The table as it is now; as it was where the file cannot be read."""
        if self._path is None or now_s - self._checked_s < CHECK_EVERY_S:
            return self.table
        self._checked_s = now_s
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self.table = load(self._path)
            except CredentialsError as error:
                # Without the last valid keys a typing error in the file would stop all exporters.
                _log.error("the keys stay as they were: %s", error)
        return self.table
