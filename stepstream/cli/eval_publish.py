"""``stepstream eval publish``, and what ``eval gate --publish`` stores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.files import read_text
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark
from stepstream.schemas.formatting import format_number_of

if TYPE_CHECKING:
    from stepstream.evals.gate.policy import GatePolicy
    from stepstream.evals.gate.trials import Results
    from stepstream.evals.gate.verdict import Verdict
    from stepstream.schemas.settings import Settings


@takes("clickhouse", settings=["project"])
def publish(
    settings: Settings,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of results of `eval run`.")
    ],
) -> None:
    """Store results of suites, for SQL and for the console's page /evals.

    The same file again changes nothing. To open the run of a trial, send its events as well:
    `eval run --events FILE`, then `stepstream replay FILE --keep-ids --keep-times --speed 0`.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.evals.gate.trials import ResultsError, parse_results
    from stepstream.suites.publish import publish_results

    require_clickhouse(settings)
    try:
        # All are read before the first is stored.
        read = [parse_results(str(file), read_text(file)) for file in files]
    except ResultsError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    for results in read:
        own_id = publish_results(settings, results, time.time_ns() // 1_000)
        echo(f"{own_id}  {results.name}: {format_number_of(results.trials, 'trial')}")


def publish_verdict(
    settings: Settings,
    verdict: Verdict,
    baseline: Results,
    candidate: Results,
    policy: GatePolicy,
) -> None:
    """Store a verdict with the results of both sides, and print its id; or why it is not stored."""
    from stepstream.suites.publish import publish_verdict as store

    try:
        own_id = store(settings, verdict, baseline, candidate, policy, time.time_ns() // 1_000)
    except Exception as error:
        # The exit code is the verdict's: 1 would state that the candidate is worse.
        message, _ = errors.describe(error)
        errors.complain(f"the verdict is not published: {message}")
        return
    # On stderr: stdout may be JSON.
    remark(f"published as {own_id}; the console shows it at /evals/{own_id}")
