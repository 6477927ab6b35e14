"""A worker with a bug: it fails on every step whose name begins with "poison". Run by tests as a process."""

from __future__ import annotations

import sys
from typing import Any

from stepstream.schemas.step import Step
from stepstream.settings import load
from stepstream.stream import worker
from stepstream.stream.partition import AssemblePartition

_accept = AssemblePartition._accept


def _failing(self: AssemblePartition, step: Step, *rest: Any) -> None:
    if step.name.startswith("poison"):
        raise ZeroDivisionError(f"cannot digest {step.name}")
    _accept(self, step, *rest)


if __name__ == "__main__":
    setattr(AssemblePartition, "_accept", _failing)  # noqa: B010  # a bug, put in from outside
    sys.exit(worker.run(load()))
