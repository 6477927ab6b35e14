"""One trial in a child process: calls the agent, records its run, and writes both to a file."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepstream.evals.cases import Case
from stepstream.schemas.recording import Recording as RecordedCalls
from stepstream.schemas.step import StepEvent
from stepstream.suites.conversation import Message, asked, converse
from stepstream.testing.replay import Rules, replaying
from stepstream.testing.runs import Recorded, recording
from stepstream.testing.stubs import StubbedTools, outside

MAX_ERROR: Final = 300


@dataclass(frozen=True)
class Recording:
    """A trial whose calls are made, and recorded if there is a folder for them."""

    folder: str = ""
    case: Case | None = None
    """With stubs, or with a user who sends more than the input."""
    user: Callable[[list[Message]], Any] | None = None


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
    written = json.dumps(_recorded(agent, given, how, seed))
    # Renamed once it is complete: a child that is killed while it writes leaves no half of a file.
    part = result.with_suffix(".part")
    part.write_text(written, encoding="utf-8")
    part.rename(result)


def _recorded(
    agent: Callable[[Any], Any], given: Any, how: Recording | Serving, seed: int
) -> dict[str, Any]:
    if isinstance(how, Recording):
        # Not the folder of the environment: only what was asked for is recorded.
        talks = how.case is not None and how.case.is_conversation
        # A replay calls the agent once, so that a recorded conversation could not be replayed.
        folder = "" if talks else how.folder
        with recording(recordings=folder) as recorded, _stubbed(how.case, seed):
            if how.case is not None and talks:
                return _conversed(agent, how.case, how.user, recorded)
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


@contextmanager
def _stubbed(case: Case | None, seed: int) -> Iterator[None]:
    """Answer calls of the tools that the case has stubs for."""
    if case is None or not case.stubs:
        yield
        return
    # The recorder is made with the engine: calls that stubs answer are recorded too.
    importlib.import_module("stepstream")._tracer.engine()
    before = outside.boundary
    outside.boundary = StubbedTools(case.stubs, seed, before)
    try:
        yield
    finally:
        outside.boundary = before


def _conversed(
    agent: Callable[..., Any],
    case: Case,
    user: Callable[[list[Message]], Any] | None,
    recorded: Recorded,
) -> dict[str, Any]:
    """A conversation is one run: the runs of the agent are parts of it."""
    sdk = importlib.import_module("stepstream")

    def whole(given: Any) -> str:
        with sdk.run("conversation", input=given) as run:
            answer = converse(agent, case, user)
            run.set_output(answer)
        return answer

    found = _called_once(whole, case.input, recorded)
    found["events"] = _of_the_agent(found["events"])
    return found


def _of_the_agent(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events; the conversation gets the agent, version and task of the first run inside it."""
    inner = next((e for e in events if e.get("parent_step_id") and e["kind"] == "agent"), None)
    if inner is None:
        return events
    own = {name: inner.get(name, "") for name in ("agent", "agent_version", "task")}
    return [event if event.get("parent_step_id") else {**event, **own} for event in events]


def _called_once(agent: Callable[[Any], Any], given: Any, recorded: Recorded) -> dict[str, Any]:
    # Here and not at the top: packages below `stepstream` do not import it (docs/architecture.md).
    sdk = importlib.import_module("stepstream")
    error, output = "", None
    began = time.monotonic()
    try:
        output = asked(agent, given)
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
