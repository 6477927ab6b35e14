"""Pieces of queries that several questions have in common."""

from __future__ import annotations

from typing import Final

OWNED: Final = (
    "project LIKE {project:String} AND environment LIKE {environment:String} "
    "AND agent LIKE {agent:String}"
)

STEPS_WITHIN: Final = (
    "start_time >= {since:DateTime64(6, 'UTC')} AND start_time < {until:DateTime64(6, 'UTC')}"
)

# run_day is the day on which a run's first record arrived, and what runs are partitioned by. A
# record may be dated up to a day ahead of its arrival, and any time behind it (an import).
RUNS_WITHIN: Final = (
    "run_day >= toDate({since:DateTime64(6, 'UTC')}) - 1 "
    "AND start_time >= {since:DateTime64(6, 'UTC')} AND start_time < {until:DateTime64(6, 'UTC')}"
)

# Whole hours come from the hourly sums, the rest of the window from the steps themselves: exact to
# the microsecond, and a window of weeks reads at most two hours of steps.
FIRST_HOUR: Final = (
    "toStartOfHour({since:DateTime64(6, 'UTC')} + toIntervalMicrosecond(3599999999))"
)
LAST_HOUR: Final = "toStartOfHour({until:DateTime64(6, 'UTC')})"
WHOLE_HOURS: Final = f"time >= {FIRST_HOUR} AND time < {LAST_HOUR}"
REST_OF_STEPS: Final = (
    f"{STEPS_WITHIN} AND (start_time < {FIRST_HOUR} OR start_time >= {LAST_HOUR})"
)


def similar_runs(columns: str) -> str:
    """A query of what is normal for a run: columns of the last 50 runs of its agent and task before
    it that went well."""
    return f"""\
SELECT {columns} FROM runs
WHERE run_day >= {{run_day:Date}} - 7 AND run_day <= {{run_day:Date}}
    AND project = {{run_project:String}} AND environment = {{run_environment:String}}
    AND agent = {{run_agent:String}} AND task = {{run_task:String}}
    AND closed AND status = 'ok' AND trace_id != {{run:String}}
    AND start_time < {{run_start:DateTime64(6, 'UTC')}}
ORDER BY start_time DESC, trace_id LIMIT 50"""
