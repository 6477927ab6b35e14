"""Agents for the fault suite's tasks: each start and each end of a body is a line in a file outside
of the product, with the fencing number.
"""

from __future__ import annotations

import os
import time
from typing import Any

import stepstream

app = stepstream.Executor(project="chaos", lease="12s")


def note(task: stepstream.Task, what: str) -> None:
    """Append ``task fence what`` in one write."""
    ledger = os.open(os.environ["TASK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{task.id} {task.fence} {what}\n".encode())
    finally:
        os.close(ledger)


def work(task: stepstream.Task) -> dict[str, Any]:
    note(task, "began")
    time.sleep(float(task.input))
    note(task, "ended")
    return {"fence": task.fence}


@app.agent("plain")
def plain(task: stepstream.Task) -> dict[str, Any]:
    """Must not begin twice."""
    return work(task)


@app.agent(
    "again",
    retry=stepstream.Retry(5, on=(stepstream.LostLease, Exception), wait="100ms..1s"),
    idempotent=True,
)
def again(task: stepstream.Task) -> dict[str, Any]:
    """May begin again, and keeps a value from the first attempt that has one."""
    kept = task.once("first", lambda: task.fence)
    return work(task) | {"kept": kept}


@app.agent("limited", max_running=2, key="user_id", idempotent=True)
def limited(task: stepstream.Task) -> dict[str, Any]:
    """Two at a time over all executors, one for each user."""
    return work(task)
