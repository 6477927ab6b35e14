"""An agent that records steps until it is killed or its time is over.

``python -m tests.support.spool_agent SECONDS NAME [STEP_S]``. After each step it prints the step's
number, how many events so far are delivered or on disk, and how many were dropped. Events are
settled in the order in which they were recorded.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import stepstream

STEP_S: Final = 0.002


def main(seconds: float, name: str, step_s: float = STEP_S) -> None:
    """Record steps called NAME-1, NAME-2 ... in a run called NAME; each takes ``step_s``."""
    until = time.monotonic() + seconds
    with stepstream.run(name) as run:
        number = 0
        while time.monotonic() < until:
            number += 1
            with run.tool(f"{name}-{number}", input="x" * 200):
                time.sleep(step_s)
            counts = stepstream._tracer.counts
            print(number, counts.delivered + counts.spooled, counts.dropped, flush=True)


def recorded(name: str, steps: int) -> list[tuple[str, str]]:
    """Name and phase of what the agent records, in order, as long as its run is open."""
    return [
        (name, "start"),
        *(
            (f"{name}-{number}", phase)
            for number in range(1, steps + 1)
            for phase in ("start", "end")
        ),
    ]


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:]))
