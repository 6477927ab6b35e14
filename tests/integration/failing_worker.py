"""A worker process with bugs: steps with certain names make it fail, exit or hang."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import Any

from stepstream.common.settings import load
from stepstream.schemas.accept import Accepted
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.shell import worker

_accept = AssemblePartition._accept


def _failing(self: AssemblePartition, accepted: Accepted, *rest: Any) -> None:
    step = accepted.step
    if step.name.startswith("poison"):
        raise ZeroDivisionError(f"cannot digest {step.name}")
    if step.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if step.name == "endless":
        time.sleep(600)
    if step.name == "backtracking":  # in C code that lets no thread run
        re.match(r"(a+)+$", "a" * 64 + "b")
    _accept(self, accepted, *rest)


if __name__ == "__main__":
    setattr(AssemblePartition, "_accept", _failing)  # noqa: B010  # a bug, put in from outside
    sys.exit(worker.run(load()))
