"""User ids replaced by a keyed hash, so that a run shows which runs have the same user and no more.

The hash is HMAC-SHA256 with the setting ``user_id_key``, of which the first 32 hex digits are kept.
Without the key a user id cannot be found by hashing candidates.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from stepstream.schemas.step import AnyStep

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

_PREFIX: Final = "hmac:"
_DIGITS: Final = 32
_HASHED: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{{_DIGITS}}}")
# Shorter ids ("1", "ann") are part of other words, so they are replaced only where they are the
# whole value.
_SHORTEST_PART: Final = 6
_REMEMBERED: Final = 4_096


def user_ids_of(settings: Settings) -> UserIds | None:
    """By the setting ``user_id_key``; None without a key."""
    key = settings.user_id_key.get_secret_value()
    return UserIds(key) if key else None


class UserIds:
    """Replaces user ids by their hash with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        # An agent's steps have the same user one after the other.
        self.hashed = lru_cache(maxsize=_REMEMBERED)(self._hashed)

    def _hashed(self, user_id: str) -> str:
        """``hmac:`` and 32 hex digits. An id that is hashed already stays, also if empty."""
        if not user_id or _HASHED.fullmatch(user_id):
            return user_id
        digest = hmac.digest(self._key, user_id.encode("utf-8", "replace"), "sha256")
        return f"{_PREFIX}{digest.hex()[:_DIGITS]}"

    def replace(self, step: AnyStep) -> None:
        """Replace the step's user id, also where an attribute repeats it."""
        given = step.user_id
        if not given:
            return
        step.user_id = hashed = self.hashed(given)
        if hashed == given:
            return
        if any(given in value for value in step.attributes.values()):
            # A new dictionary: the program's thread may read the one of this step.
            step.attributes = {
                name: self._replaced(value, given, hashed)
                for name, value in step.attributes.items()
            }

    @staticmethod
    def _replaced(value: str, given: str, hashed: str) -> str:
        if value == given:
            return hashed
        return value.replace(given, hashed) if len(given) >= _SHORTEST_PART else value
