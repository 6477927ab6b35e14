"""Files that a command reads."""

from __future__ import annotations

from pathlib import Path

from stepstream.cli import errors


def read_text(file: Path) -> str:
    """Its text. Raises ``errors.Failure``."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.Failure(f"{file}: not a text in UTF-8", errors.USAGE) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise errors.Failure(f"{file}: {reason}", errors.USAGE) from None
