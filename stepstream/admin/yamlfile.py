"""YAML documents with the line of every value, so that validation errors name the line."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from stepstream.schemas.wording import reasons

MAX_ALIASED: Final = 100_000
"""Values that the aliases of a document may stand for."""


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


class _Loader(yaml.SafeLoader):
    """Reads JSON as well.

    JSON writes a character beyond U+FFFF as two escapes, which YAML reads as two surrogates, and
    those cannot be encoded. A surrogate without its other half becomes U+FFFD.
    """

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not value.isascii():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value


def read(file: Path, problems: list[Problem]) -> Iterator[Document]:
    """The documents of a file; what cannot be read is added to ``problems``."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(Problem(Place(file, 0), f"cannot be read: {reason}"))
        return
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            document = _document(file, node, loader, problems)
            if document is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(
            Problem(
                Place(file, mark.line + 1 if mark else 0),
                f"not YAML: {error.problem or error.context}",
            )
        )
    except (yaml.YAMLError, RecursionError) as error:
        problems.append(Problem(Place(file, 0), f"not YAML: {' '.join(str(error).split())}"))
    finally:
        loader.dispose()


def _document(
    file: Path, node: yaml.Node | None, loader: yaml.SafeLoader, problems: list[Problem]
) -> Document | None:
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return None  # nothing between two lines of dashes
    place = Place(file, node.start_mark.line + 1)
    if not isinstance(node, yaml.MappingNode):
        problems.append(Problem(place, "a document is a mapping with kind and name"))
        return None
    repeated = list(_repeated_keys(node, set()))
    if repeated:
        problems += [
            Problem(Place(file, key.start_mark.line + 1), f"{key.value} is given twice")
            for key in repeated
        ]
        return None
    known: dict[int, int] = {}
    # Ten lines of aliases of aliases stand for millions of values: whatever copies the document,
    # such as its JSON, would need minutes and gigabytes.
    if _values(node, known) - len(known) > MAX_ALIASED:
        reason = f"its aliases stand for more than {MAX_ALIASED:,} values: use fewer of them"
        problems.append(Problem(place, reason))
        return None
    try:
        return Document(loader.construct_document(node), node, place)
    except ValueError as error:  # 2026-13-01 looks like a date
        problems.append(Problem(place, f"not YAML: {error}"))
        return None


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of nodes with each alias replaced by what it names; ``known``: by node."""
    if id(node) not in known:
        # Counted as one within itself: a node may be an alias of a node around it.
        known[id(node)] = 1
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] += sum(_values(part, known) for part in parts)
    return known[id(node)]


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
    """Validation errors as problems with their lines; ``kinds`` is the union of models that was
    tried.
    """
    return [
        Problem(Place(document.place.file, _line(document.node, path)), reason)
        for path, reason in reasons(error, kinds, document.value)
    ]


def line_of(document: Document, path: tuple[int | str, ...]) -> int:
    """The line of a value, or of the deepest mapping or list around it that is there."""
    return _line(document.node, path)


def _line(node: yaml.Node, path: tuple[int | str, ...]) -> int:
    """The line of the deepest part of the path that is there; an unknown key's own line."""
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
