"""Replays a recorded run with an agent, in a process of its own, and scores it."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepstream.evals.cases import Case
from stepstream.evals.gate.trials import Trial
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.recording import Recording, RecordingError
from stepstream.schemas.suggestions import did_you_mean
from stepstream.suites.runner import Running, ended, scored
from stepstream.suites.trial import Serving, perform
from stepstream.testing.replay import Rules, input_of, read_recording

__all__ = ["Replayed", "Rules", "find_recording", "read_recording", "replay"]


@dataclass(frozen=True)
class Replayed:
    """What came of a replay."""

    recording: Recording
    divergence: str
    """The first difference from the recording, in words; empty if there is none."""
    calls: int
    made_live: int
    error: str
    """What the agent raised, or that it did not end."""
    trial: Trial
    """By the given criteria."""
    events: list[dict[str, Any]]

    @property
    def redacted_calls(self) -> int:
        """Calls whose results had secrets, which the replay does not have."""
        return sum(call.is_redacted for call in self.recording.calls)


def find_recording(folder: str, run: str) -> Path:
    """The file of a recording: by its path, or by the run's id or a unique beginning of it.

    Raises ``RecordingError``.
    """
    if Path(run).is_file():
        return Path(run)
    if not folder:
        raise RecordingError(
            f"{run}: no such file; for the id of a run, name the folder of recordings with "
            "--recordings or STEPSTREAM_RECORDINGS"
        )
    found = sorted(Path(folder).glob(f"{_plain(run)}*.jsonl")) if _plain(run) else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise RecordingError(f"{folder} has no recording of the run {run}")
    names = ", ".join(one.stem for one in found[:3])
    raise RecordingError(f"{run} is the beginning of {len(found)} recorded runs: {names} ...")


def _plain(run: str) -> str:
    # Ids are hexadecimal: nothing that is typed may become a pattern or leave the folder.
    return run.lower() if run.isalnum() else ""


def replay(
    recording: Recording,
    agent: Callable[[Any], Any],
    rules: Rules,
    criteria: Sequence[Criteria] = (),
    timeout_s: float = 60.0,
) -> Replayed:
    """Call the agent with the recorded input and serve its calls.

    Raises ``RecordingError`` where the recording and the rules do not fit.
    """
    _check(recording, rules)
    given = input_of(recording)
    call = functools.partial(_with_arguments, agent)
    with tempfile.TemporaryDirectory(prefix="stepstream-replay-") as folder:
        result = Path(folder) / "result.json"
        # Forked, as trials are: what the agent prints or changes stays in its own process.
        process = multiprocessing.get_context("fork").Process(
            target=perform, args=(call, given, 0, result, Serving(recording, rules))
        )
        process.start()
        case = Case(id=recording.trace_id or "run", input=None)
        one = Running(case, 0, process, time.monotonic() + timeout_s, result)
        process.join(timeout_s)
        found = ended(one, timeout_s, process.is_alive())
    of_replay = found.get("replay", {})
    return Replayed(
        recording=recording,
        divergence=of_replay.get("divergence", ""),
        calls=of_replay.get("calls", 0),
        made_live=of_replay.get("made_live", 0),
        error=found.get("error", ""),
        trial=scored(case, 0, found, criteria),
        events=found.get("events", []),
    )


def _with_arguments(agent: Callable[..., Any], given: Any) -> Any:
    """Call the agent as it was called: a dictionary with the names of its parameters is these.

    A decorated agent records its arguments by name, unless it has one text.
    """
    if isinstance(given, dict) and given:
        try:
            parameters = inspect.signature(agent).parameters
            inspect.signature(agent).bind(**given)
        except (TypeError, ValueError):
            return agent(given)
        if set(given) <= set(parameters):
            return agent(**given)
    return agent(given)


def _check(recording: Recording, rules: Rules) -> None:
    if recording.gaps and rules.is_strict:
        raise RecordingError(
            f"the recording cannot be replayed as a whole: {'; '.join(recording.gaps)}"
        )
    names = sorted({call.name for call in recording.calls})
    for tool in rules.swap:
        if tool not in names:
            raise RecordingError(
                f"--swap: the run has no call of {tool}; {did_you_mean(tool, names)}"
            )
    if rules.until is not None and rules.until > len(recording.calls):
        raise RecordingError(f"--until {rules.until}: the run has {len(recording.calls)} calls")
