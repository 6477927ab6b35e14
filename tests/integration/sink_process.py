"""A sink as a process that kills or freezes itself at a named point: ``python -m
tests.integration.sink_process``.

The settings come from the environment; SINK_CRASH is ``point|passes``, SINK_FREEZE a point at which
it stops (SIGSTOP) once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from stepstream.common.settings import load
from stepstream.sinks.clickhouse.sink import run


def hook_from(environment: dict[str, str]) -> Callable[[str], None]:
    """A hook that kills or stops the process at the point that the environment names."""
    crash, _, passes = environment.get("SINK_CRASH", "|0").partition("|")
    freeze = environment.get("SINK_FREEZE", "")
    left = {"passes": int(passes or 0), "freezes": 1}

    def hook(point: str) -> None:
        if crash and point == crash:
            if left["passes"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left["passes"] -= 1
        if freeze and point == freeze and left["freezes"]:
            left["freezes"] = 0
            os.kill(os.getpid(), signal.SIGSTOP)

    return hook


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")
    sys.exit(run(load(), hook=hook_from(dict(os.environ))))
