"""The assemble stage's settings: how long runs stay open, how much is kept in memory. Times are
microseconds of log time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepstream.schemas.accept import Limits
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US

NEVER_US = 2**62
"""Later than any time."""

LIVE_WITHIN_US = MINUTE_US
"""A run whose first record was appended later than this after its own time sets no timers: it is an
import or a replay.
"""

MANY_RUNS = 1_000
RECORDS_PER_CHECKPOINT = 16
"""With more than ``MANY_RUNS`` open, at most one record in this many leads to a checkpoint."""
SMALL_RUN_STEPS = 64
"""A run with more steps is not checkpointed every ten seconds: its state record is as long as all
of its steps, and would be written as often as one of them ends."""


@dataclass(frozen=True, slots=True)
class AssembleLimits:
    """See the settings of the same names."""

    close_after_us: int = 2_000_000
    rootless_idle_us: int = MINUTE_US
    # Exporters send batches every 5 s: a run of spans without flags may well go on after this.
    unflagged_idle_us: int = 3_000_000
    max_run_age_us: int = DAY_US
    late_horizon_us: int = HOUR_US
    revision_interval_us: int = 1_000_000
    usage_interval_us: int = 5_000_000
    checkpoint_after_us: int = 300_000_000
    checkpoint_small_after_us: int = 10_000_000
    max_steps_per_run: int = 20_000
    max_open_runs: int = 200_000
    max_closed_runs: int = 100_000
    max_held_bytes: int = 2**30
    replay_records: int = 200_000
    content_detectors: bool = True
    # Shared with the sink, so that both accept the same records.
    records: Limits = field(default_factory=Limits)

    def replay_length(self, open_runs: int) -> int:
        """The number of records after which a run that still needs its first one is checkpointed.
        Each open run is written once in this many records; with very many runs the number grows, or
        the worker would do little else.
        """
        return max(self.replay_records, self.shortest_replay(open_runs))

    @staticmethod
    def shortest_replay(open_runs: int) -> int:
        """The number of records before which no run is checkpointed however much time passes."""
        return max(0, RECORDS_PER_CHECKPOINT * (open_runs - MANY_RUNS))

    @classmethod
    def from_settings(cls, settings: Settings) -> AssembleLimits:
        """The limits that the settings give."""
        return cls(
            close_after_us=settings.close_after,
            rootless_idle_us=settings.rootless_idle,
            max_run_age_us=settings.max_run_age,
            late_horizon_us=settings.late_horizon,
            revision_interval_us=settings.revision_interval,
            usage_interval_us=settings.usage_interval,
            max_steps_per_run=settings.max_steps_per_run,
            max_open_runs=settings.max_open_runs,
            max_held_bytes=settings.max_held_bytes,
            replay_records=settings.replay_records,
            content_detectors=settings.content_detectors,
            records=record_limits(settings),
        )
