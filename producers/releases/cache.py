"""The newest release of each label on disk, for agents that start without their endpoint.

One file for an endpoint, agent and label, in the state directory. It is replaced as a whole, so a
reader finds the old or the new content. Its hash is checked like that of a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from stepstream.schemas.release import Release, WrongRelease, decode_release, encode_release


class ReleaseCache:
    """The files of one endpoint."""

    def __init__(self, state_folder: Path, destination: str) -> None:
        """``destination`` names the endpoint: the same label may name something else elsewhere."""
        name = hashlib.sha256(destination.encode()).hexdigest()[:16]
        self.folder = state_folder / "releases" / name

    def _file(self, agent: str, name: str) -> Path:
        return self.folder / f"{quote(agent, safe='')}@{quote(name, safe='')}.json"

    def read(self, agent: str, name: str) -> Release | None:
        """The release; None without one. Raises ``WrongRelease`` for a file that was changed."""
        try:
            value = self._file(agent, name).read_bytes()
        except OSError:
            return None
        release = decode_release(value)
        if release.agent != agent:
            raise WrongRelease(f"it is a release of {release.agent}")
        return release

    def write(self, name: str, release: Release) -> None:
        """Replace the file. Raises ``OSError``."""
        file = self._file(release.agent, name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Prompts may be confidential: mkstemp makes files that only their owner can read.
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(encode_release(release))
            Path(temporary).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
