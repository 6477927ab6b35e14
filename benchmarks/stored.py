"""Waiting until the store holds what was sent."""

from __future__ import annotations

import time
from typing import Final

from clickhouse_connect.driver.client import Client

from benchmarks.child import ChildFailed

# Steps that have ended and are there.
STEPS: Final = "SELECT count() FROM steps_raw"

# Records that trajectories contain: a revision counts them.
EVENTS: Final = "SELECT sum(intDiv(revision, 2)) FROM runs"

SETTLE_S: Final = 300.0
_PAUSE_S: Final = 0.1


def wait_reached(client: Client, query: str, wanted: int) -> None:
    """Wait until a query gives so much, for as long as anything may take.

    Raises ``ChildFailed`` after that.
    """
    deadline = time.monotonic() + SETTLE_S
    while (found := int(client.command(query))) < wanted:  # type: ignore[arg-type]
        if time.monotonic() > deadline:
            raise ChildFailed(f"after {SETTLE_S:.0f} s {query} gave {found:,} of {wanted:,}")
        time.sleep(_PAUSE_S)
