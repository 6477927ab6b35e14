"""Builds a release from plain files: ``release.yaml``, a file for each prompt and each tool.

    agents/support/
        release.yaml
        prompts/plan.md
        tools/lookup_order.yaml

All files are read before anything is reported, so that one call lists every problem.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from stepstream.admin import yamlfile
from stepstream.admin.yamlfile import Document, Place, Problem
from stepstream.common.prompts import PromptSet
from stepstream.schemas.release import (
    SHOWN_HASH,
    AgentName,
    Parameters,
    Prompt,
    PromptName,
    Release,
    ReleaseContent,
    ReleasedTool,
    Source,
    Version,
    WrongRelease,
    hash_of,
    new_release,
)
from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.wording import reasons

MANIFEST: Final = "release.yaml"
PROMPT_SUFFIXES: Final = (".md", ".txt", ".j2", ".jinja")
TOOL_SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILE_BYTES: Final = 500_000
GIT_S: Final = 10.0


class BuildError(Exception):
    """The files are no release: one problem per line, with file, line and reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class PromptEntry(BaseModel):
    """What ``release.yaml`` has of a prompt; its template is in a file of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variables: tuple[str, ...] = ()
    model: Parameters = Field(default_factory=dict)


class Manifest(BaseModel):
    """The file ``release.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Release"]
    agent: AgentName
    version: Version | None = None
    model: Parameters = Field(default_factory=dict)
    prompts: dict[PromptName, PromptEntry]
    tools: tuple[str, ...]
    criteria: tuple[dict[str, JsonValue], ...] = ()

    @field_validator("prompts", mode="before")
    @classmethod
    def _lists_are_variables(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: {"variables": entry} if isinstance(entry, list) else entry or {}
            for name, entry in given.items()
        }


def build(path: Path, *, version: str = "", revision: str | None = None) -> Release:
    """The release in a folder. Raises ``BuildError``.

    ``version`` replaces that of ``release.yaml``; without any it is made from the content's hash.
    ``revision`` replaces the commit that git reports for the folder.
    """
    folder = path.parent if path.name == MANIFEST else path
    problems: list[Problem] = []
    document, manifest = _manifest(folder / MANIFEST, problems)
    prompts = _prompts(folder, document, manifest, problems)
    tools = _tools(folder, document, manifest, problems)
    if problems:
        raise BuildError(problems)
    content = {
        "kind": "Release",
        "agent": manifest.agent,
        "version": version or manifest.version or "",
        "prompts": prompts,
        "model": manifest.model,
        "tools": tools,
        "criteria": manifest.criteria,
    }
    source = _source(folder) if revision is None else Source(revision=revision)
    return _release(content, source, document.place)


def _release(content: dict[str, Any], source: Source, place: Place) -> Release:
    try:
        named = ReleaseContent.model_validate({**content, "version": content["version"] or "0"})
        if not content["version"]:
            made = hash_of({**named.model_dump(mode="json"), "version": ""})[:SHOWN_HASH]
            named = named.model_copy(update={"version": made})
        return new_release(named, source)
    except ValidationError as error:
        raise BuildError(
            [Problem(place, reason) for _, reason in reasons(error, ReleaseContent, content)]
        ) from None
    except WrongRelease as error:
        raise BuildError([Problem(place, str(error))]) from None


def _manifest(file: Path, problems: list[Problem]) -> tuple[Document, Manifest]:
    """The manifest. Raises ``BuildError``: without it nothing else can be checked."""
    if not file.is_file():
        raise BuildError([Problem(Place(file, 0), "there is no such file; a release begins there")])
    documents = list(yamlfile.read(file, problems))
    if len(documents) != 1 and not problems:
        problems.append(Problem(Place(file, 0), "it has one document, of kind Release"))
    if problems:
        raise BuildError(problems)
    try:
        return documents[0], Manifest.model_validate(documents[0].value)
    except ValidationError as error:
        raise BuildError(yamlfile.explain(error, documents[0], Manifest)) from None


# -- prompts ---------------------------------------------------------------------------------------


def _prompts(
    folder: Path, document: Document, manifest: Manifest, problems: list[Problem]
) -> dict[str, Prompt]:
    files = _files(folder / "prompts", PROMPT_SUFFIXES, problems)
    _compare("prompts", files, manifest.prompts, document, problems)
    found: dict[str, Prompt] = {}
    for name, entry in sorted(manifest.prompts.items()):
        text = _text(files[name], problems) if name in files else None
        if text is not None:
            # An editor's last newline is no part of a prompt.
            template = text.removesuffix("\n")
            found[name] = Prompt(template=template, variables=entry.variables, model=entry.model)
    declared = {name: frozenset(prompt.variables) for name, prompt in found.items()}
    templates = {name: prompt.template for name, prompt in found.items()}
    for fault in PromptSet(templates).faults(declared):
        hint = ""
        if fault.unknown:
            known = manifest.prompts[fault.prompt].variables
            hint = f"; {did_you_mean(fault.unknown, known)}"
        problems.append(
            Problem(Place(files[fault.prompt], fault.line), f"{fault.reason}{hint}"),
        )
    return found


# -- tools -----------------------------------------------------------------------------------------


def _tools(
    folder: Path, document: Document, manifest: Manifest, problems: list[Problem]
) -> list[ReleasedTool]:
    files = _files(folder / "tools", TOOL_SUFFIXES, problems)
    _compare("tools", files, manifest.tools, document, problems)
    read = [_tool(name, files[name], problems) for name in manifest.tools if name in files]
    return [tool for tool in read if tool is not None]


def _tool(name: str, file: Path, problems: list[Problem]) -> ReleasedTool | None:
    before = len(problems)
    documents = list(yamlfile.read(file, problems))
    if len(problems) > before:
        return None
    if len(documents) != 1:
        problems.append(Problem(Place(file, 0), "it has one document, the tool"))
        return None
    declared = _declaration(documents[0].value)
    if declared.setdefault("name", name) != name:
        problems.append(
            Problem(documents[0].place, f"its name is {declared['name']!r}, and its file's {name}")
        )
        return None
    try:
        return ReleasedTool.model_validate(declared)
    except ValidationError as error:
        problems += yamlfile.explain(error, documents[0], ReleasedTool)
        return None


def _declaration(given: dict[str, Any]) -> dict[str, Any]:
    """A tool as OpenAI, Anthropic or this project writes it, with this project's names."""
    declared = dict(given)
    if isinstance(declared.get("function"), dict) and declared.get("type") in (None, "function"):
        declared = dict(declared["function"])
    if "input_schema" in declared and "parameters" not in declared:
        declared["parameters"] = declared.pop("input_schema")
    return declared


# -- files -----------------------------------------------------------------------------------------


def _files(folder: Path, suffixes: Sequence[str], problems: list[Problem]) -> dict[str, Path]:
    """The files of a folder by their names without suffix; hidden ones are left out."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix not in suffixes:
            problems.append(Problem(Place(file, 0), f"files here end in {', '.join(suffixes)}"))
        elif file.stem in found:
            other = found[file.stem].name
            problems.append(Problem(Place(file, 0), f"{other} has the same name"))
        else:
            found[file.stem] = file
    return found


def _compare(
    what: str,
    files: Mapping[str, Path],
    named: Iterable[str],
    document: Document,
    problems: list[Problem],
) -> None:
    """Report names without a file, and files without a name."""
    names = list(named)
    for name in names:
        if name not in files:
            hint = did_you_mean(name, files, otherwise=f"add {what}/{name}.*")
            place = Place(document.place.file, yamlfile.line_of(document, (what, name)))
            problems.append(Problem(place, f"{what}.{name} has no file in {what}/; {hint}"))
    for name, file in files.items():
        if name not in names:
            problems.append(
                Problem(Place(file, 0), f"{MANIFEST} does not name it: add {name} under {what}")
            )


def _text(file: Path, problems: list[Problem]) -> str | None:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            problems.append(Problem(Place(file, 0), f"it has more than {MAX_FILE_BYTES:,} bytes"))
            return None
        # Newlines of Windows would give another hash for the same prompt.
        return file.read_text(encoding="utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        problems.append(Problem(Place(file, 0), "it is not UTF-8"))
    except OSError as error:
        problems.append(Problem(Place(file, 0), f"cannot be read: {error.strerror}"))
    return None


def _source(folder: Path) -> Source:
    """The commit that git has for the folder, and whether its files differ from it."""
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return Source()
    return Source(revision=revision, changed=bool(_git(folder, "status", "--porcelain", "--", ".")))


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; empty where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
