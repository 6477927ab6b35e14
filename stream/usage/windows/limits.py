"""How many records the windows keep and how late a record may come.

The usage stage's settings, in microseconds of log time.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepstream.schemas.settings import Settings
from stepstream.schemas.times import MINUTE_US


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """See the settings of the same names."""

    lateness_us: int = 10 * MINUTE_US
    seal_every_us: int = 5 * MINUTE_US
    """A multiple of a minute that an hour is a multiple of."""
    max_owners: int = 5_000
    max_records: int = 500_000

    @classmethod
    def from_settings(cls, settings: Settings) -> UsageLimits:
        """The limits that the settings give."""
        return cls(
            lateness_us=settings.window_lateness,
            max_owners=settings.max_window_owners,
            max_records=settings.max_window_records,
        )
