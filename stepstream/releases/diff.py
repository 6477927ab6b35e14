"""What two releases have different: texts line by line, tools, parameters. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from stepstream.schemas.release import Release

CONTEXT_LINES: Final = 2


@dataclass(frozen=True)
class Difference:
    """One part of a release that is new, gone or changed."""

    part: str
    """``prompt plan``, ``tool lookup_order``, ``model temperature``, ``criteria``."""
    what: Literal["added", "removed", "changed"]
    lines: tuple[str, ...]
    """The lines of a unified diff, without its head: each begins with ``+``, ``-``, a space or
    ``@@``.
    """


def differences(old: Release, new: Release) -> list[Difference]:
    """Every part that differs: model parameters, prompts, tools, criteria."""
    return [
        *_parts("model", _values(old.model), _values(new.model)),
        *_parts("prompt", _prompts(old), _prompts(new)),
        *_parts("tool", _tools(old), _tools(new)),
        *_tool_order(old, new),
        *_parts("criteria", _criteria(old), _criteria(new)),
    ]


def _parts(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        what: Literal["added", "removed", "changed"] = (
            "added" if before is None else "removed" if after is None else "changed"
        )
        part = f"{kind} {name}".rstrip()
        found.append(Difference(part, what, _lines(before or "", after or "")))
    return found


def _lines(before: str, after: str) -> tuple[str, ...]:
    found = difflib.unified_diff(
        before.splitlines(), after.splitlines(), n=CONTEXT_LINES, lineterm=""
    )
    # The first two lines are the names of files.
    return tuple(found)[2:]


def _values(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, ensure_ascii=False) for name, value in parameters.items()}


def _prompts(release: Release) -> dict[str, str]:
    found = {}
    for name, prompt in release.prompts.items():
        head = [f"variables: {', '.join(prompt.variables)}"] if prompt.variables else []
        head += [f"{key}: {value}" for key, value in _values(prompt.model).items()]
        # One text for a prompt: a change of its variables is read next to that of its template.
        found[name] = "\n".join([*head, prompt.template])
    return found


def _tools(release: Release) -> dict[str, str]:
    return {
        tool.name: f"{tool.description}\n{json.dumps(tool.parameters, indent=1, sort_keys=True)}"
        for tool in release.tools
    }


def _tool_order(old: Release, new: Release) -> list[Difference]:
    """Models read tools in order: another order of the same tools is a change."""
    before, after = ([tool.name for tool in one.tools] for one in (old, new))
    if before == after or sorted(before) != sorted(after):
        return []
    return [Difference("order of tools", "changed", _lines("\n".join(before), "\n".join(after)))]


def _criteria(release: Release) -> dict[str, str]:
    texts = [json.dumps(one, sort_keys=True, ensure_ascii=False) for one in release.criteria]
    return {"": "\n".join(texts)} if texts else {}
