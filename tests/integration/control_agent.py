"""An agent for tests of control: works until it is stopped, and prints how it ended."""

from __future__ import annotations

import sys
import time

import stepstream


def main(price: str, most_steps: int) -> int:
    """Steps of ``price`` dollars each, twenty a second."""
    taken = 0
    try:
        with stepstream.run(task="work") as run:
            print("run", run.trace_id, flush=True)
            for taken in range(1, most_steps + 1):
                with run.llm("think", model="gpt-4o", provider="openai") as step:
                    time.sleep(0.05)
                    step.set_cost(price)
                print("step", taken, time.time(), flush=True)
    except stepstream.RunStopped as stopped:
        print("stopped", time.time(), stopped.by, stopped.reason, flush=True)
        return 3
    print("done", taken, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
