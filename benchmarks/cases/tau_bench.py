"""An airline's support agent (tau-bench, gpt-4o): OpenAI messages without times; a clock of our own
is put under them.

A tool that fails reports it in ordinary content (``Error: ...``), so its step counts as ok: that is
the trap of this source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.cases import case_files, content, data_folder, read_json
from stepstream.schemas.step import StepEvent

# 2025-01-01 12:00 UTC; runs follow each other by ten minutes.
FIRST_RUN_US: Final = 1_735_732_800_000_000
BETWEEN_RUNS_US: Final = 600_000_000
USER_US: Final = 5_000_000
MODEL_US: Final = 1_500_000
TOOL_US: Final = 300_000


def runs() -> Iterator[list[StepEvent]]:
    """Every run, in the order of the files. Raises ``MissingData``."""
    for number, (run, trace_id) in enumerate(recorded()):
        yield _run(run, trace_id, FIRST_RUN_US + number * BETWEEN_RUNS_US)


def recorded() -> Iterator[tuple[dict[str, Any], str]]:
    """Every run as the source has it, with what was meant to be done, and its trace id.

    Raises ``MissingData``.
    """
    seen: set[str] = set()
    for path in case_files(data_folder("tau_bench")):
        content = read_json(path)
        for number, run in enumerate(content if isinstance(content, list) else [content]):
            name = f"tau_bench/{run.get('task_id', number)}/{run.get('trial', 0)}"
            trace_id = hashlib.sha256(name.encode()).hexdigest()[:32]
            if trace_id in seen:  # the same task in another file
                trace_id = hashlib.sha256(f"{path.name}/{number}".encode()).hexdigest()[:32]
            seen.add(trace_id)
            yield run, trace_id


def _run(run: dict[str, Any], trace_id: str, start_us: int) -> list[StepEvent]:
    whose = {"trace_id": trace_id, "project": "tau", "agent": "airline", "task": "airline"}
    steps: list[StepEvent] = []
    clock, heard, calls = start_us, "", dict[str, dict[str, Any]]()

    def add(kind: str, name: str, took_us: int, given: str, taken: str, **more: Any) -> None:
        nonlocal clock
        (given, given_bytes), (taken, taken_bytes) = content(given), content(taken)
        ends = {
            "start_time": clock,
            "end_time": clock + took_us,
            "input_bytes": given_bytes,
            "output_bytes": taken_bytes,
        }
        ids = {"step_id": f"{len(steps) + 2:016x}", "parent_step_id": f"{1:016x}"}
        steps.append(
            StepEvent.model_validate(
                whose
                | ids
                | ends
                | {"kind": kind, "name": name, "input": given, "output": taken}
                | more
            )
        )
        clock += took_us

    for message in run["traj"]:
        text = message.get("content") or ""
        if message["role"] == "assistant":
            wanted = message.get("tool_calls") or []
            calls |= {call["id"]: call["function"] for call in wanted}
            output = json.dumps(wanted) if wanted else text
            add("llm_call", "gpt-4o", MODEL_US, heard, output, model="gpt-4o", provider="openai")
        elif message["role"] == "tool":
            given = calls[message["tool_call_id"]]["arguments"]
            add("tool_call", message["name"], TOOL_US, given, text, tool=message["name"])
            heard = text
        else:
            clock += USER_US
            heard = text
    root = whose | {
        "step_id": f"{1:016x}",
        "kind": "agent",
        "name": "airline",
        "start_time": start_us,
        "end_time": clock,
    }
    attributes = {name: run[name] for name in ("task_id", "trial", "reward") if name in run}
    return [StepEvent.model_validate(root | {"attributes": attributes}), *steps]
