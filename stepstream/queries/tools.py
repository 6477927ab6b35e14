"""Why a run chose a tool: the model step that chose it, what it had read, what it could choose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.queries.answer import Answer, Record
from stepstream.queries.common import similar_runs
from stepstream.queries.parameters import RUN, Parameter, Unanswerable, limit
from stepstream.queries.question import Question, Rows, Values
from stepstream.schemas.suggestions import did_you_mean

CHOOSERS: Final = frozenset({"llm_call", "tool_selection", "plan"})
READABLE: Final = frozenset({"tool_call", "retrieval", "guardrail", "state_update"})
"""Kinds of steps whose output a model reads before its next choice."""

DEFINITIONS: Final = ("gen_ai.tool.definitions", "gen_ai.request.tools", "llm.tools", "tools")
"""Attributes of a model step with the tools that it could call, as JSON."""

MOST_READ: Final = 20
STEP: Final = Parameter(
    "step",
    "text",
    "Only calls of this tool, or the step with this name or beginning of an id.",
    "",
    is_positional=True,
)

# The end of an input is what was added last: a conversation is sent again with each call.
_STEPS: Final = """
SELECT step_id, parent_step_id, kind, name, tool, model,
    toUnixTimestamp64Micro(start_time) AS start_us,
    ifNull(toUnixTimestamp64Micro(end_time), 0) AS end_us, status,
    if(kind IN ('llm_call', 'plan', 'tool_selection'),
        substringUTF8(input, greatest(1, lengthUTF8(input) - 999), 1000), '') AS input_end,
    lengthUTF8(input) AS input_chars,
    if(kind IN ('llm_call', 'plan', 'tool_selection'), substringUTF8(output, 1, 1000), '')
        AS output,
    if(kind = 'tool_call', substringUTF8(input, 1, 500), '') AS arguments,
    mapFilter((k, v) -> k LIKE '%tool%', attributes) AS attributes
FROM trace(id = {run:String})"""

_PATHS: Final = similar_runs("path")


@dataclass(frozen=True, slots=True)
class Choice:
    """A tool call and what led to it."""

    call: Record
    chooser: Record | None
    read: list[Record] = field(default_factory=list)


def tool_calls(steps: Iterable[Record]) -> list[Record]:
    """The tool calls of a run, in order of their starts."""
    return _in_order(step for step in steps if step["kind"] == "tool_call")


def choices(steps: Sequence[Record], calls: Iterable[Record] | None = None) -> list[Choice]:
    """Each tool call, or each of ``calls``, with the model step that chose it, in the same order.

    That is the nearest model step above the call in the tree, else the last model step that ended
    before it under the nearest step above it that has one.
    """
    ordered = _in_order(steps)
    by_id = {step["step_id"]: step for step in ordered}
    above = {step["step_id"]: _above(step, by_id) for step in ordered}
    choosers = {step["step_id"]: step for step in ordered if step["kind"] in CHOOSERS}
    found = []
    for call in tool_calls(ordered) if calls is None else calls:
        chooser = _chooser(call, choosers, above)
        read = [] if chooser is None else _read(chooser, choosers.values(), ordered)
        found.append(Choice(call, chooser, read))
    return found


def _in_order(steps: Iterable[Record]) -> list[Record]:
    return sorted(steps, key=lambda step: (step["start_us"], step["step_id"]))


def _above(step: Record, by_id: Mapping[str, Record]) -> list[str]:
    """The ids of the steps above one, the nearest first; a circle of parents ends it."""
    found: list[str] = []
    parent = step["parent_step_id"]
    # The empty parent is the place of all roots, so that calls without a tree have choosers too.
    while parent in by_id and parent not in found and len(found) < 100:
        found.append(parent)
        parent = by_id[parent]["parent_step_id"]
    return [*found, ""]


def _chooser(
    call: Record, choosers: Mapping[str, Record], above: Mapping[str, list[str]]
) -> Record | None:
    for place in above[call["step_id"]]:
        if place in choosers:
            return choosers[place]
        earlier = [
            one
            for one in choosers.values()
            if one["step_id"] != call["step_id"]
            and 0 < (one["end_us"] or one["start_us"]) <= call["start_us"]
            and (place in above[one["step_id"]])
        ]
        if earlier:
            return earlier[-1]
    return None


def _read(chooser: Record, choosers: Iterable[Record], ordered: Sequence[Record]) -> list[Record]:
    """The steps whose outputs were new to a model step: since the model step before it."""
    before = [one["start_us"] for one in choosers if one["start_us"] < chooser["start_us"]]
    since = max(before, default=0)
    return [
        step
        for step in ordered
        if step["kind"] in READABLE
        and since <= step["start_us"]
        and 0 < step["end_us"] <= chooser["start_us"]
    ][-MOST_READ:]


def offered(attributes: Mapping[str, str]) -> list[str]:
    """The names of the tools that a model could call, as far as its step has them."""
    for name in DEFINITIONS:
        if name in attributes:
            return _names(attributes[name])
    indexed = (
        value
        for key, value in sorted(attributes.items())
        if key.startswith("llm.tools.") and key.endswith("json_schema")
    )
    return [name for value in indexed for name in _names(value)]


def _names(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if text.lstrip()[:1] in ("[", "{"):
            return []  # JSON that was cut
        # Some programs list the names with commas.
        return [name.strip() for name in text.split(",") if name.strip()]
    listed = found if isinstance(found, list) else [found]
    return [name for name in map(_name, listed) if name]


def _name(tool: Any) -> str:
    if isinstance(tool, str):
        return tool
    if not isinstance(tool, dict):
        return ""
    inner = tool.get("function")
    return str(tool.get("name") or (inner.get("name") if isinstance(inner, dict) else "") or "")


def next_tools(paths: Iterable[Sequence[str]], chooser: str) -> Counter[str]:
    """How often each tool was called next after a model step, in the paths of runs.

    ``chooser`` and the entries of a path are 'kind name'.
    """
    counted: Counter[str] = Counter()
    for path in paths:
        asked = False
        for entry in path:
            kind, _, name = entry.partition(" ")
            if entry == chooser:
                asked = True
            elif asked and kind == "tool_call":
                counted[name] += 1
                asked = False
            elif kind in CHOOSERS:
                asked = False
    return counted


def _explain(steps: list[Record], values: Values, rows: Rows) -> list[Record]:
    wanted = values["step"]
    calls = tool_calls(steps)
    matching = [call for call in calls if _matches(call, wanted)]
    if not matching:
        names = list(dict.fromkeys(call["tool"] for call in calls))
        hint = did_you_mean(wanted, names) if names else "it called no tool"
        raise Unanswerable(f"run {values['run'][:8]} has no call of {wanted or 'a tool'}; {hint}")
    paths = [row["path"] for row in rows(_PATHS, values)]
    return [_row(choice, paths) for choice in choices(steps, matching[: values["limit"]])]


def _matches(call: Record, wanted: str) -> bool:
    return (
        not wanted or wanted in (call["tool"], call["name"]) or call["step_id"].startswith(wanted)
    )


def _row(choice: Choice, paths: Sequence[Sequence[str]]) -> Record:
    call, chooser = choice.call, choice.chooser
    similar = next_tools(paths, f"{chooser['kind']} {chooser['name']}") if chooser else Counter()
    recorded = offered(chooser["attributes"]) if chooser else []
    made = similar.total()
    return {
        "step_id": call["step_id"],
        "tool": call["tool"] or call["name"],
        "status": call["status"],
        "arguments": call["arguments"],
        "chosen_by": chooser["step_id"] if chooser else "",
        "chosen_by_name": chooser["name"] if chooser else "",
        "model": chooser["model"] if chooser else "",
        "output": chooser["output"] if chooser else "",
        "input_end": chooser["input_end"] if chooser else "",
        "input_chars": chooser["input_chars"] if chooser else 0,
        "read": [(step["step_id"], step["kind"], step["name"]) for step in choice.read],
        "offered": recorded or sorted(similar),
        "offered_from": "recorded" if recorded else "similar runs" if similar else "",
        "similar": similar.most_common(10),
        "similar_choices": made,
        "similar_share": similar[call["tool"] or call["name"]] / made if made else None,
    }


def _sentence(answer: Answer) -> str:
    first = answer.records()[0]
    if not first["chosen_by"]:
        return f"No model step before {first['tool']} is recorded: the program called it itself."
    read = ", ".join(name for _, _, name in first["read"][-3:])
    text = (
        f"{first['chosen_by_name']} ({first['model'] or 'no model recorded'}) chose "
        f"{first['tool']}" + (f" after it had read {read}" if read else "")
    )
    if first["similar_choices"]:
        text += (
            f"; in earlier good runs it chose this tool {first['similar_share']:.0%} of "
            f"{first['similar_choices']:,} times"
        )
    return text + "."


QUESTIONS: Final = (
    Question(
        "why-tool",
        "Why did a run choose a tool?",
        _STEPS,
        (RUN, STEP, limit(50)),
        {
            "step_id": "the tool call",
            "tool": "its tool",
            "status": "how it ended",
            "arguments": "the beginning of its input",
            "chosen_by": "the model step that chose it; empty where the program did",
            "chosen_by_name": "its name",
            "model": "its model",
            "output": "the beginning of what the model answered",
            "input_end": "the end of what the model had read, 1,000 characters",
            "input_chars": "how long that was",
            "read": "steps whose output was new to the model: id, kind, name",
            "offered": "the tools that it could choose",
            "offered_from": "recorded: by the model step; similar runs: tools chosen there",
            "similar": "tools that this model step chose in the last 50 good runs, and how often",
            "similar_choices": "choices in them",
            "similar_share": "part of them that were this tool; NULL without any",
        },
        _sentence,
        _explain,
    ),
)
