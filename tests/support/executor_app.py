"""Agents for tests of executors. What they do outside is a line in the file ``ledger``."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import stepstream

app = stepstream.Executor(project="shop", lease=os.environ.get("EXECUTOR_LEASE", "45s"))


def note(task: stepstream.Task, what: str) -> None:
    """Append a line: task, attempt, fencing number, process, what."""
    line = f"{task.id} {task.attempt} {task.fence} {os.getpid()} {what}\n"
    with Path(os.environ["EXECUTOR_LEDGER"]).open("a") as ledger:
        ledger.write(line)


@app.agent("echo", version="v1", task="repeat")
def echo(task: stepstream.Task) -> Any:
    note(task, "ran")
    with task.run.tool("repeat", input=task.input) as step:
        step.set_output(task.input)
    return task.input


@app.agent("aecho")
async def aecho(task: stepstream.Task) -> Any:
    note(task, "ran")
    await asyncio.sleep(0)
    return task.input


@app.agent("fails", retry=stepstream.Retry(2, on=(ConnectionError,)))
def fails(task: stepstream.Task) -> None:
    raise ConnectionResetError("the payment service does not answer")


@app.agent("odd")
def odd(task: stepstream.Task) -> object:
    return object()


@app.agent("leaves")
def leaves(task: stepstream.Task) -> None:
    sys.exit(3)


@app.agent("waits", idempotent=True)
async def waits(task: stepstream.Task) -> str:
    note(task, "began")
    await asyncio.sleep(600)
    return "never"


@app.agent("steps", timeout="2s", grace="1s")
def steps(task: stepstream.Task) -> str:
    note(task, "began")
    for _ in range(6_000):
        with task.run.tool("work"):
            time.sleep(0.1)
    return "never"


@app.agent("works")
def works(task: stepstream.Task) -> str:
    note(task, "began")
    time.sleep(float(task.input))
    note(task, "ended")
    return "done"


@app.agent("keeps", idempotent=True)
async def keeps(task: stepstream.Task) -> int:
    def effect() -> int:
        note(task, "effect")
        return task.attempt

    value = await task.once("effect", effect)
    # In the attempt that has computed the value, which is the attempt's number.
    if value == task.attempt and task.input == "die":
        os.kill(os.getpid(), 9)
    return int(value)


@app.agent("blocks")
async def blocks(task: stepstream.Task) -> str:
    # Functions of a PyDLL keep the GIL.
    ctypes.PyDLL(None).sleep(int(task.input))
    return "blocked"


@app.agent("forks")
def forks(task: stepstream.Task) -> str:
    if os.fork() == 0:
        return "from the child"
    print("a line on stdout", flush=True)
    return "from the parent"


@app.agent("alone", isolation="process", timeout="3s", grace="1s")
def alone(task: stepstream.Task) -> Any:
    note(task, "began")
    print("a line on stdout", flush=True)
    if task.input == "hang":
        while True:
            time.sleep(0.01)
    if task.input == "die":
        os.kill(os.getpid(), 9)
    return {"pid": os.getpid(), "kept": task.once("value", lambda: task.attempt)}


@app.ready
def is_ready() -> bool:
    return not Path(os.environ["EXECUTOR_LEDGER"]).with_name("not-ready").exists()
