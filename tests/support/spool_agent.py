"""An agent that records steps until it is killed or its time is over.

``python -m tests.support.spool_agent SECONDS NAME [STEP_S]``. After each step it prints the step's
number, how many events so far are delivered or on disk, and how many were dropped. Events are
settled in the order in which they were recorded.

``python -m tests.support.spool_agent serve`` starts agents as copies of itself, in some
milliseconds instead of a second of CPU each: for each line ``SECONDS NAME STEP_S FILE`` one, whose
output goes to the file; it prints the agent's pid.
"""

from __future__ import annotations

import os
import signal
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


def serve() -> None:
    """Start agents until the input ends. Those that run go on."""
    # What an agent would import in its first moments.
    import stepstream.producers.transport.kafka
    import stepstream.producers.transport.spool  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes agents that have ended
    while line := sys.stdin.readline():
        seconds, name, step_s, path = line.split()
        agent = os.fork()
        if agent == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(0)
            main(float(seconds), name, float(step_s))
            return
        print(agent, flush=True)


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
    if sys.argv[1] == "serve":
        serve()
        sys.exit()
    main(float(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:]))
