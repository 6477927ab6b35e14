"""Secrets that subscriptions name: looked up when they are needed, never kept, taken out of whatever is said."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepstream.schemas.channels import Channel, is_secret_ref, may_name, not_allowed, secrets_in

_SHORTEST: Final = 4
_LONG_PART: Final = 12
_IDENTITIES: Final = frozenset({"kubernetes.io", "eks.amazonaws.com", "azure"})
"""Folders in which clusters put the tokens of the process itself, also below /run/secrets."""
_BETWEEN: Final = re.compile(r"[/:@?&=,]")


class NoSecret(Exception):
    """A secret that cannot be had; says which and why, never what it is."""


@dataclass(frozen=True)
class Secrets:
    """Where secrets come from: variables that documents may name, and files under one folder."""

    folder: Path = Path("/run/secrets")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    listed: frozenset[str] = frozenset()
    """Variables that documents may name besides those with the prefix for them."""

    def text(self, value: str) -> str:
        """The value, or what it refers to. Raises ``NoSecret``."""
        if not is_secret_ref(value):
            return value
        kind, _, name = value.partition(":")
        return self._variable(name) if kind == "env" else self._file(name)

    def _variable(self, name: str) -> str:
        if not may_name(name, self.listed):
            raise NoSecret(not_allowed(name))
        found = self.environ.get(name, "")
        if not found:
            raise NoSecret(f"env:{name} is not set in the notifier's environment")
        return found

    def _file(self, name: str) -> str:
        path = Path(name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise NoSecret(f"file:{name} is not under {self.folder} (setting notify_secrets_dir)")
        if set(path.relative_to(self.folder.resolve()).parts) & _IDENTITIES:
            raise NoSecret(
                f"file:{name} is what this process proves its own identity with: no document may send it"
            )
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise NoSecret(f"file:{name} cannot be read: {reason}") from None

    def values(self, options: Channel) -> list[str]:
        """Every secret of a channel that can be had, and the parts of those that are URLs, to be taken out of what is said."""
        found = []
        for ref in secrets_in(options):
            try:
                secret = self.text(ref)
            except NoSecret:
                continue
            found += [secret, *(part for part in _BETWEEN.split(secret) if len(part) >= _LONG_PART)]
        return found


def without(text: str, secrets: Iterable[str], longest: int = 400) -> str:
    """The text on one line, cut, with every secret replaced."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
