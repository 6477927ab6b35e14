"""Which configuration runs had: version, release, tools and models, and how many runs."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, RUNS_WITHIN
from stepstream.queries.parameters import OWNER, WINDOW, limit
from stepstream.queries.question import Question
from stepstream.schemas.formatting import format_number_of
from stepstream.schemas.step import RELEASE_ATTRIBUTE

# The release stands at the root step, which may have begun and ended outside of the window by as
# much as a clock is wrong: a day on both sides.
_CONFIGURATIONS: Final = f"""
SELECT r.agent AS agent, r.agent_version AS agent_version, s.release AS release,
    arraySort(r.tools) AS tools, arraySort(r.models) AS models, count() AS runs,
    countIf(r.status = 'error') AS failed_runs, max(r.start_time) AS last_run,
    argMax(r.trace_id, r.start_time) AS trace_id
FROM
(
    SELECT trace_id, root_step_id, agent, agent_version, status, tools, models, start_time
    FROM runs
    WHERE {RUNS_WITHIN} AND {OWNED}
) AS r
LEFT JOIN
(
    SELECT trace_id, step_id, attributes['{RELEASE_ATTRIBUTE}'] AS release
    FROM steps
    WHERE start_time >= {{since:DateTime64(6, 'UTC')}} - toIntervalDay(1)
        AND start_time < {{until:DateTime64(6, 'UTC')}} + toIntervalDay(1) AND {OWNED}
        AND mapContains(attributes, '{RELEASE_ATTRIBUTE}')
) AS s ON r.trace_id = s.trace_id AND r.root_step_id = s.step_id
GROUP BY agent, agent_version, release, tools, models
ORDER BY runs DESC, agent, agent_version, release, tools, models
LIMIT {{limit:UInt64}}"""


def _sentence(answer: Answer) -> str:
    rows = answer.records()
    without = sum(row["runs"] for row in rows if not row["release"])
    return (
        f"{format_number_of(len(rows), 'configuration')}; {without:,} of "
        f"{sum(row['runs'] for row in rows):,} runs used no release."
    )


QUESTIONS: Final = (
    Question(
        "configurations",
        "Which versions, releases, tools and models did runs use?",
        _CONFIGURATIONS,
        (*WINDOW, *OWNER, limit(1_000)),
        {
            "agent": "the agent",
            "agent_version": "the version that its runs carry",
            "release": "hash of the release that they used; empty: none",
            "tools": "tools that they called",
            "models": "models that they used",
            "runs": "runs",
            "failed_runs": "of them: with the status error",
            "last_run": "start of the last one, UTC",
            "trace_id": "the last one",
        },
        _sentence,
    ),
)
