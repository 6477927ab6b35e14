"""An agent for the alert latency benchmark: loops until a policy stops it, again and again; reports
how long each stop took."""

from __future__ import annotations

import sys
import time

import stepstream
from benchmarks.child import Answer, serve

CALLS = 4
PAUSE_S = 0.2
PATIENCE_S = 10.0


def stops(count: int) -> Answer:
    """So many runs: seconds from the end of the call that makes a loop to ``RunStopped``;

    None where it never came.
    """
    return {"took": [_stop() for _ in range(count)]}


def _stop() -> float | None:
    with_run = stepstream.run(task="loop")
    began = 0.0
    try:
        with with_run as run:
            for number in range(CALLS):
                if number == CALLS - 1:
                    time.sleep(PAUSE_S)  # the run is known, and listened for
                    began = time.time()
                with run.tool("search", input="same") as step:
                    step.set_output("same")
            while time.time() - began < PATIENCE_S:
                time.sleep(0.001)
                run.checkpoint()
    except stepstream.RunStopped:
        return time.time() - began
    return None


if __name__ == "__main__":
    serve({"stops": stops})
    sys.exit(0)
