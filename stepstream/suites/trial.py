"""One trial in a child process: calls the agent, records its run, and writes both to a file."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepstream.schemas.recording import Recording as RecordedCalls
from stepstream.schemas.step import StepEvent
from stepstream.testing.replay import Rules, replaying
from stepstream.testing.runs import Recorded, recording

MAX_ERROR: Final = 300


@dataclass(frozen=True)
class Recording:
    """A trial whose calls are made, and recorded if there is a folder for them."""

    folder: str = ""


@dataclass(frozen=True)
class Serving:
    """A trial whose calls are those of a recording."""

    recording: RecordedCalls
    rules: Rules


def perform(
    agent: Callable[[Any], Any],
    given: Any,
    seed: int,
    result: Path,
    how: Recording | Serving = Recording(),
) -> None:
    """Call the agent and write what it did. Runs in a child process, in a group of its own."""
    os.setsid()
    _discard_output()
    os.environ["TRIAL_SEED"] = str(seed)
    written = json.dumps(_recorded(agent, given, how))
    # Renamed once it is complete: a child that is killed while it writes leaves no half of a file.
    part = result.with_suffix(".part")
    part.write_text(written, encoding="utf-8")
    part.rename(result)


def _recorded(agent: Callable[[Any], Any], given: Any, how: Recording | Serving) -> dict[str, Any]:
    if isinstance(how, Recording):
        # Not the folder of the environment: only what was asked for is recorded.
        with recording(recordings=how.folder) as recorded:
            return _called_once(agent, given, recorded)
    with replaying(
        how.recording, live=how.rules.live, swap=how.rules.swap, until=how.rules.until
    ) as replay:
        found = _called_once(agent, given, replay.recorded)
        found["replay"] = {
            "divergence": replay.divergence,
            "calls": replay.calls,
            "made_live": replay.made_live,
        }
        return found


def _called_once(agent: Callable[[Any], Any], given: Any, recorded: Recorded) -> dict[str, Any]:
    # Here and not at the top: packages below `stepstream` do not import it (docs/architecture.md).
    sdk = importlib.import_module("stepstream")
    error, output = "", None
    began = time.monotonic()
    try:
        output = _called(agent, given)
    except BaseException as raised:  # also SystemExit: an agent that exits has crashed
        error = f"{type(raised).__name__}: {raised}"[:MAX_ERROR]
    latency_s = time.monotonic() - began
    if not recorded.events:
        with sdk.run("agent", input=given) as run:
            run.set_output(output)
    events = recorded.events
    return {
        "error": error,
        "latency_s": latency_s,
        "events": [event.model_dump(mode="json") for event in _with_answer(events, output)],
    }


def _called(agent: Callable[[Any], Any], given: Any) -> Any:
    found = agent(given)
    if inspect.iscoroutine(found):
        import asyncio

        return asyncio.run(found)
    return found


def _with_answer(events: list[StepEvent], output: Any) -> list[StepEvent]:
    """The events; a root without an output gets what the function returned."""
    if output is None:
        return events
    text = output if isinstance(output, str) else json.dumps(output, default=str)
    return [
        event.model_copy(update={"output": text})
        if event.phase == "end" and not event.parent_step_id and not event.output
        else event
        for event in events
    ]


def _discard_output() -> None:
    """Discard what the agent writes to standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    # A program that replaced them (a notebook, a test runner) writes past the descriptors 1 and 2.
    sys.stdout = os.fdopen(1, "w", 1, "utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, "utf-8", closefd=False)
