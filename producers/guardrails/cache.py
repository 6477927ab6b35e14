"""The last known guardrails on disk, for agents that start without their endpoint.

One file for an endpoint, in the state directory. It is replaced as a whole, so a reader finds the
old or the new content, and it begins with the digest of the rest: a file that was cut or changed
is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 4_000_000
"""The largest file that is written or read."""
_DIGEST_CHARS: Final = 64


class WrongCache(ValueError):
    """The file cannot be used; the message states why."""


class GuardrailCache:
    """The file of one endpoint."""

    def __init__(self, state_folder: Path, destination: str) -> None:
        """``destination`` names the endpoint: another one has other policies."""
        name = hashlib.sha256(destination.encode()).hexdigest()[:16]
        self.file = state_folder / "guardrails" / f"{name}.jsonl"

    def read(self) -> list[bytes] | None:
        """The policies, one record each; None without a file. Raises ``WrongCache``."""
        try:
            if self.file.stat().st_size > MAX_BYTES:
                raise WrongCache(f"it is larger than {MAX_BYTES:,} bytes")
            value = self.file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WrongCache(f"it cannot be read: {error.strerror}") from None
        digest, _, rest = value.partition(b"\n")
        if digest != _digest(rest):
            raise WrongCache("it was cut or changed")
        return [line for line in rest.split(b"\n") if line]

    def write(self, policies: Sequence[bytes]) -> None:
        """Replace the file; ``policies`` are JSON without line ends.

        Raises ``OSError``, and ``WrongCache`` if they are too large.
        """
        # Not at the top: only the listener's thread writes, and steps do not wait for the import.
        import tempfile

        rest = b"\n".join(policies)
        value = _digest(rest) + b"\n" + rest
        if len(value) > MAX_BYTES:
            raise WrongCache(f"the guardrails have more than {MAX_BYTES:,} bytes")
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Policies are of interest to an attacker: mkstemp makes files that only their owner reads.
        handle, temporary = tempfile.mkstemp(dir=self.file.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(value)
            Path(temporary).replace(self.file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise

    def remove(self) -> None:
        """Remove the file, if there is one. Raises ``OSError``."""
        self.file.unlink(missing_ok=True)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).hexdigest().encode()[:_DIGEST_CHARS]
