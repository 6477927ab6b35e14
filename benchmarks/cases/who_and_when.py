"""Conversations of agents that failed (Who&When): messages without times or tokens; a clock of our
own is put under them.

Speakers that carry out what others ask (a terminal, a browser) are tools here, the others are
models. Who made the decisive mistake, and in which message, was decided by people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.cases import case_files, content, data_folder, read_json
from stepstream.schemas.step import StepEvent

SETS: Final = ("algorithm_generated", "hand_crafted")
TOOLS: Final = frozenset({"computer_terminal", "computerterminal", "websurfer", "filesurfer"})
FIRST_RUN_US: Final = 1_735_732_800_000_000
BETWEEN_RUNS_US: Final = 600_000_000
MESSAGE_US: Final = 2_000_000


@dataclass(frozen=True)
class Failed:
    """A failed conversation: its steps, of which the root is the first, and the message that
    people blame."""

    source: str
    steps: list[StepEvent]
    mistake: int


def cases() -> Iterator[Failed]:
    """Every conversation, by set and file name. Raises ``MissingData``."""
    folder = data_folder("who_and_when")
    number = 0
    for source in SETS:
        if not (folder / source).is_dir():
            continue
        for path in case_files(folder / source):
            conversation = read_json(path)
            if conversation.get("history") and str(conversation.get("mistake_step", "")).isdigit():
                run = _steps(
                    conversation, f"{source}/{path.name}", FIRST_RUN_US + number * BETWEEN_RUNS_US
                )
                yield Failed(source, run, int(conversation["mistake_step"]))
                number += 1


def step_id(message: int) -> str:
    """The step that a message is."""
    return f"{message + 2:016x}"


def _steps(conversation: dict[str, Any], name: str, start_us: int) -> list[StepEvent]:
    whose = {
        "trace_id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "project": "who_and_when",
        "agent": "team",
    }
    heard = str(conversation.get("question") or "")
    root_end = start_us + len(conversation["history"]) * MESSAGE_US
    steps = [StepEvent.model_validate(whose | _root(heard, start_us, root_end))]
    for number, message in enumerate(conversation["history"]):
        speaker = str(message.get("name") or message.get("role") or "agent")
        output, size = content(str(message.get("content") or ""))
        is_tool = speaker.lower() in TOOLS
        what: dict[str, Any] = (
            {"kind": "tool_call", "tool": speaker} if is_tool else {"kind": "llm_call"}
        )
        times = {
            "start_time": start_us + number * MESSAGE_US,
            "end_time": start_us + (number + 1) * MESSAGE_US,
        }
        ids = {"step_id": step_id(number), "parent_step_id": f"{1:016x}", "name": speaker}
        texts = {"input": content(heard)[0], "output": output, "output_bytes": size}
        steps.append(StepEvent.model_validate(whose | what | times | ids | texts))
        heard = str(message.get("content") or "")
    return steps


def _root(question: str, start_us: int, end_us: int) -> dict[str, Any]:
    ids = {"step_id": f"{1:016x}", "kind": "agent", "name": "team"}
    return ids | {"start_time": start_us, "end_time": end_us, "input": content(question)[0]}
