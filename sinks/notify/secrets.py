"""Secrets that subscriptions refer to: read at every attempt, and removed from every text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepstream.schemas.channels import Channel, is_secret_ref, may_name, not_allowed, secrets_in

_MIN_CHARS: Final = 4
"""A shorter secret is not replaced in texts: it would be found in ordinary words."""
_MIN_PART_CHARS: Final = 12
"""A part of a URL that is at least so long may be a token."""
_IDENTITIES: Final = frozenset({"kubernetes.io", "eks.amazonaws.com", "azure"})
"""Folders in which clusters put the tokens of the process itself, also below /run/secrets."""
_URL_SEPARATORS: Final = re.compile(r"[/:@?&=,]")


class SecretUnavailable(Exception):
    """A secret that cannot be read; the text has its name and the reason, never its value."""


@dataclass(frozen=True)
class Secrets:
    """Reads secrets from environment variables that documents may name, and files of one folder."""

    folder: Path = Path("/run/secrets")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    listed: frozenset[str] = frozenset()
    """Variables that documents may name besides those with the fixed prefix."""

    def text(self, value: str) -> str:
        """The value itself, or the secret it refers to. Raises ``SecretUnavailable``."""
        if not is_secret_ref(value):
            return value
        kind, _, name = value.partition(":")
        return self._variable(name) if kind == "env" else self._file(name)

    def _variable(self, name: str) -> str:
        if not may_name(name, self.listed):
            raise SecretUnavailable(not_allowed(name))
        found = self.environ.get(name, "")
        if not found:
            raise SecretUnavailable(f"env:{name} is not set in the notifier's environment")
        return found

    def _file(self, name: str) -> str:
        # Resolved first: neither `..` nor a symbolic link leads out of the folder.
        path, folder = Path(name).resolve(), self.folder.resolve()
        if not path.is_relative_to(folder):
            raise SecretUnavailable(
                f"file:{name} is not in {self.folder} (setting notify_secrets_dir)"
            )
        if set(path.relative_to(folder).parts) & _IDENTITIES:
            raise SecretUnavailable(
                f"file:{name} is the identity of this process in its cluster: "
                f"no document may send it"
            )
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SecretUnavailable(f"file:{name} cannot be read: {reason}") from None

    def values(self, options: Channel) -> list[str]:
        """Every readable secret of a channel's options, to be removed from texts.

        Of a URL the long parts are secrets of their own: an error may repeat only the path.
        """
        found = []
        for ref in secrets_in(options):
            try:
                secret = self.text(ref)
            except SecretUnavailable:
                continue
            parts = _URL_SEPARATORS.split(secret)
            found += [secret, *(part for part in parts if len(part) >= _MIN_PART_CHARS)]
        return found

    def snapshot(self, options: Channel) -> SecretSnapshot:
        """The secrets that a channel's options name, read now."""
        found: dict[str, str | SecretUnavailable] = {}
        for ref in secrets_in(options):
            try:
                found[ref] = self.text(ref)
            except SecretUnavailable as error:
                found[ref] = error
        return SecretSnapshot(found, self.values(options))


@dataclass(frozen=True)
class SecretSnapshot:
    """The secrets of one subscription, for a channel that must not read others."""

    _found: Mapping[str, str | SecretUnavailable]
    _values: list[str]
    listed: frozenset[str] = frozenset()

    def text(self, value: str) -> str:
        """The value itself, or the secret it refers to. Raises ``SecretUnavailable``."""
        if not is_secret_ref(value):
            return value
        found = self._found.get(value)
        if found is None:
            raise SecretUnavailable(f"{value} is not an option of this subscription")
        if isinstance(found, SecretUnavailable):
            raise found
        return found

    def values(self, options: Channel) -> list[str]:
        """Every secret that was read."""
        return self._values

    def snapshot(self, options: Channel) -> SecretSnapshot:
        """This object: its secrets do not change."""
        return self


def without(text: str, secrets: Iterable[str], max_chars: int = 400) -> str:
    """The text on one line, shortened, with every secret replaced by ``***``."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_CHARS:
            text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= max_chars else f"{text[: max_chars - 3]}..."
