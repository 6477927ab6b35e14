"""``stepstream eval replay``: a recorded run, run again with its calls served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.options import takes
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.schemas.criteria import Criteria
    from stepstream.schemas.settings import Settings
    from stepstream.suites.replay import Replayed

AgentReferenceOption = Annotated[
    str,
    typer.Option(
        "--agent",
        metavar="MODULE:FUNCTION",
        help="Function that takes the input of a case and returns the answer.",
    ),
]


class Live(StrEnum):
    """What a replay calls instead of serving it."""

    MODELS = "models"
    TOOLS = "tools"


@dataclass(frozen=True)
class Serving:
    """Which calls of a replay are made instead of served."""

    live: Annotated[
        list[Live] | None,
        typer.Option(metavar="KIND", help="Make these calls: models or tools. May be repeated."),
    ] = None
    swap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL=MODULE:FUNCTION",
            help="Call this function in the place of a tool. May be repeated.",
        ),
    ] = None
    until: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, help="Serve the calls up to this one, make later ones."),
    ] = None


@dataclass(frozen=True)
class Replaying:
    """How a replay is run, scored and kept."""

    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of the replay.")
    ] = 60.0
    criteria: Annotated[
        list[Path] | None,
        typer.Option(
            "-c", "--criteria", metavar="PATH", help="Criteria documents. May be repeated."
        ),
    ] = None
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for the step events, for `stepstream replay`."),
    ] = None


@takes(settings=["recordings"])
def replay(
    settings: Settings,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Recording, saved run, or id of a run in the folder of recordings."
        ),
    ],
    agent: AgentReferenceOption,
    serving: Serving,
    replaying: Replaying,
) -> None:
    """Run an agent on a recorded run: its calls are served, and nothing outside is called.

    The first call that was not recorded ends the replay with the call and the argument that differ.
    The exit code is 0 where everything is equal, 1 where something differs or the Criteria are not
    met, and 2 for a recording that cannot be used.
    """
    from stepstream.schemas.recording import RecordingError
    from stepstream.suites.agent import AgentError, load_agent
    from stepstream.suites.replay import Rules, find_recording, read_recording
    from stepstream.suites.replay import replay as replayed

    documents = criteria_in(replaying.criteria) if replaying.criteria else []
    try:
        function = load_agent(agent)
        rules = Rules(
            frozenset(one.value for one in serving.live or ()), _swaps(serving.swap), serving.until
        )
        recording = read_recording(find_recording(settings.recordings, run))
        done = replayed(recording, function, rules, documents, replaying.timeout)
    except (AgentError, RecordingError) as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    if replaying.events is not None:
        text = "".join(f"{json.dumps(event)}\n" for event in done.events)
        replaying.events.write_text(text, encoding="utf-8")
    echo(*_replay_lines(done, rules.is_strict, bool(documents)))
    if done.divergence or (documents and done.trial.outcome is False):
        raise typer.Exit(errors.FAILED)


def _replay_lines(done: Replayed, is_strict: bool, is_scored: bool) -> Iterator[str]:
    served = done.calls - done.made_live
    yield f"{done.recording.trace_id}: {served} calls served, {done.made_live} made"
    if done.divergence:
        yield f"DIVERGED: {done.divergence}"
    elif is_strict:
        yield "equal to the recording: every call and the answer"
    if done.error and not done.divergence:
        yield f"the agent ended with {done.error}"
    if done.redacted_calls:
        yield (
            f"{done.redacted_calls} calls had secrets in their results, which the replay does not "
            "have"
        )
    if is_scored:
        reason = f": {done.trial.reason}" if done.trial.reason else ""
        outcome = {True: "true", False: "false", None: "unknown"}[done.trial.outcome]
        yield f"success is {outcome}{reason}"


def _swaps(given: list[str] | None) -> dict[str, Callable[..., Any]]:
    from stepstream.suites.agent import AgentError, load_agent

    found = {}
    for one in given or ():
        tool, equals, reference = one.partition("=")
        if not equals:
            raise AgentError(f"--swap {one}: write TOOL=MODULE:FUNCTION")
        found[tool] = load_agent(reference)
    return found


def criteria_in(files: list[Path]) -> list[Criteria]:
    """The Criteria documents in files. Raises ``errors.Failure`` for wrong use: exit code 1 would
    state that something was scored and failed.
    """
    from stepstream.cli.documents import read_all
    from stepstream.schemas.criteria import Criteria

    try:
        written = read_all(files, "nothing was scored, because of")
    except errors.Failure as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    found = [one.document for one in written if isinstance(one.document, Criteria)]
    if not found:
        raise errors.Failure(f"no Criteria in {', '.join(map(str, files))}", errors.USAGE)
    return found
