"""YAML documents with the line of every value, and a validation error as a person at that line needs it."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Place:
    """A line of a file; line 0 is the file as a whole."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where."""

    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, and its nodes for their lines."""

    value: dict[str, Any]
    node: yaml.MappingNode
    place: Place


def read(file: Path, problems: list[Problem]) -> Iterator[Document]:
    """The documents of a file; what cannot be read is added to ``problems``."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(Problem(Place(file, 0), f"cannot be read: {reason}"))
        return
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            document = _document(file, node, loader, problems)
            if document is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(Problem(Place(file, mark.line + 1 if mark else 0), f"not YAML: {error.problem or error.context}"))
    except (yaml.YAMLError, RecursionError) as error:
        problems.append(Problem(Place(file, 0), f"not YAML: {' '.join(str(error).split())}"))
    finally:
        loader.dispose()


def _document(file: Path, node: yaml.Node | None, loader: yaml.SafeLoader, problems: list[Problem]) -> Document | None:
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return None  # nothing between two lines of dashes
    place = Place(file, node.start_mark.line + 1)
    if not isinstance(node, yaml.MappingNode):
        problems.append(Problem(place, "a document is a mapping with kind and name"))
        return None
    repeated = list(_repeated_keys(node, set()))
    if repeated:
        problems += [Problem(Place(file, key.start_mark.line + 1), f"{key.value} is given twice") for key in repeated]
        return None
    try:
        return Document(loader.construct_document(node), node, place)
    except ValueError as error:  # 2026-13-01 looks like a date
        problems.append(Problem(place, f"not YAML: {error}"))
        return None


def _repeated_keys(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    """Keys that occur twice in one mapping: YAML readers keep the last one without a word."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item, seen)
    elif isinstance(node, yaml.MappingNode):
        names: set[Hashable] = set()
        for key, value in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in names and key.tag != "tag:yaml.org,2002:merge":
                yield key
            names.add(name)
            yield from _repeated_keys(value, seen)


def explain(error: ValidationError, document: Document, kinds: Any) -> list[Problem]:
    """The validation's errors as problems at their lines; ``kinds`` is the union of models that was tried."""
    problems = []
    for wrong in error.errors(include_url=False):
        place = Place(document.place.file, _line(document.node, wrong["loc"]))
        problems.append(Problem(place, _reason(wrong, _models(kinds), document.value)))
    return problems


def _line(node: yaml.Node, path: tuple[int | str, ...]) -> int:
    """The line of the deepest part of the path that is there; an unknown key's own line."""
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _reason(wrong: Any, models: list[type[BaseModel]], value: dict[str, Any]) -> str:
    visible = _visible(wrong["loc"], value, last=wrong["type"] == "missing")
    where = ".".join(map(str, visible)) or "the document"
    context = wrong.get("ctx", {})
    match wrong["type"]:
        case "extra_forbidden":
            return f"{where} is unknown{_near(str(wrong['loc'][-1]), _fields_at(models, wrong['loc'][:-1]))}"
        case "missing":
            return f"{where} is missing"
        case "union_tag_not_found":
            field, tags = str(context["discriminator"]).strip("'"), _tags(models, wrong["loc"])
            return f"{field} of {where} is missing (one of {', '.join(tags)})"
        case "union_tag_invalid":
            field, tags = str(context["discriminator"]).strip("'"), _tags(models, wrong["loc"])
            near = _near(str(context["tag"]), tags) or f" (one of {', '.join(tags)})"
            return f"{field} of {where} is {context['tag']!r}, which is none{near}"
        case "literal_error":
            expected = [text.strip("' ") for text in str(context["expected"]).replace(" or ", ", ").split(",")]
            return f"{where} is {wrong['input']!r}{_near(str(wrong['input']), expected) or '; one of ' + ', '.join(expected)}"
        case "value_error":
            return f"{where}: {context['error']}"
        case "string_pattern_mismatch":
            return f"{where} is {wrong['input']!r}: it must match {context['pattern']}"
    return f"{where}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}, not {wrong['input']!r}"


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _visible(path: tuple[int | str, ...], value: Any, *, last: bool) -> Iterator[int | str]:
    """The path without the names of kinds and rules that validation puts in; ``last``: the last part is to be shown."""
    for position, part in enumerate(path):
        if isinstance(value, dict):
            if part in value:
                value = value[part]
            elif not (last and position == len(path) - 1):
                continue
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        yield part


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models named somewhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _tag_of(model: type[BaseModel]) -> list[str]:
    """The words by which a model of a union is chosen: those of its field ``kind`` or ``rule``."""
    for name in ("kind", "rule"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return [str(word) for word in get_args(field.annotation)]
    return []


def _models_at(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at a path."""
    for part in path:
        if isinstance(part, int):
            continue
        tagged = [model for model in models if part in _tag_of(model)]
        if len(models) > 1 and tagged:
            models = tagged
        else:
            models = [deep for model in models if part in model.model_fields for deep in _models(_annotation(model, part))]
    return models


def _annotation(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].annotation


def _fields_at(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[str]:
    return [name for model in _models_at(models, path) for name in model.model_fields]


def _tags(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[str]:
    return [tag for model in _models_at(models, path) for tag in _tag_of(model)]
