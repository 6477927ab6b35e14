"""Converts what retrievers return to the documents of a step, by usual field names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeGuard

from stepstream.producers.misuse import misuse
from stepstream.producers.values.content import SLACK_CHARS, to_text
from stepstream.producers.values.failures import message_of
from stepstream.producers.values.inspection import field_of
from stepstream.producers.values.plain import items_of, label, number_of
from stepstream.schemas.step import Document, DocumentStruct

MOST_DOCUMENTS: Final = 1_000
ID_CHARS: Final = 1_024

_IDS: Final = ("id", "document_id", "doc_id", "id_")
_CONTENTS: Final = ("content", "page_content", "text", "document")
_SCORES: Final = ("score", "relevance_score", "similarity")


def to_documents(
    items: Iterable[object], *, content: bool, max_bytes: int
) -> list[Document] | None:
    """At most ``MOST_DOCUMENTS`` documents, best first; None if ``items`` cannot be iterated over.

    ``content`` False leaves out their texts. ``max_bytes`` limits the texts in all.
    """
    found = items_of(items)
    if found is None:
        return None
    out: list[Document] = []
    while len(out) < MOST_DOCUMENTS:
        try:
            item = next(found)
        except StopIteration:
            break
        except Exception as error:  # raised by the program's generator
            misuse(
                "documents", f"only {len(out)} of the documents could be read: {message_of(error)}"
            )
            break
        document = to_document(item, content=content, max_bytes=max_bytes)
        # The limit is for all documents of a step together.
        max_bytes = max(0, max_bytes - len(document.content))
        out.append(document)
    return out


def to_document(item: object, *, content: bool = True, max_bytes: int) -> Document:
    """The document of an object, a dictionary, a text, or a pair of one of these and a score."""
    score: float | None = None
    if type(item) is tuple and len(item) == 2 and (score := _number(item[1])) is not None:
        item = item[0]
    if issubclass(type(item), str):
        return DocumentStruct(score=score, content=_text(item, max_bytes) if content else "")
    inner = _field(item, ("node",))  # LlamaIndex: NodeWithScore
    source = item if inner is None else inner
    text = _field(source, _CONTENTS)
    name = _field(source, _IDS)
    if text is None and name is None:
        text = item
    score = _number(_field(item, _SCORES)) if score is None else score
    identity = "" if name is None else label(name, ID_CHARS)
    return DocumentStruct(
        id=identity, score=score, content=_text(text, max_bytes) if content else ""
    )


def are_documents(value: object) -> TypeGuard[Sequence[object]]:
    """True if a returned value is a list of documents."""
    return (
        type(value) in (list, tuple)
        and bool(value)
        and all(map(_is_document, value[:MOST_DOCUMENTS]))  # type: ignore[index]
    )


def _is_document(item: object) -> bool:
    if type(item) is tuple and len(item) == 2 and _number(item[1]) is not None:
        item = item[0]
    return issubclass(type(item), str) or _field(item, ("node", *_CONTENTS)) is not None


def _field(item: object, names: tuple[str, ...]) -> Any:
    for name in names:
        value = field_of(item, name)
        if value is not None:
            return value
    return None


def _number(value: Any) -> float | None:
    number = number_of(value)
    if number is None:
        return None
    return number if math.isfinite(number) else None


def _text(value: object, max_bytes: int) -> str:
    return to_text(value, max_bytes)[0][: max_bytes + SLACK_CHARS]
