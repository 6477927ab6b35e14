"""Stubs in the place of tools, for tests of agents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stepstream.producers.recordings.boundary import outside
from stepstream.producers.recordings.stubs import StubbedTools, ToolFault
from stepstream.schemas.scenario import Stub
from stepstream.schemas.wording import sentences

__all__ = ["Stub", "StubbedTools", "ToolFault", "outside", "stubbed"]


@contextmanager
def stubbed(*stubs: Stub | dict[str, Any], seed: int = 0) -> Iterator[None]:
    """Answer calls of tools by stubs inside the block. Raises ``ValueError`` for a wrong one.

    A stub is what `stubs` of a case has: ``stubbed({"tool": "find_order", "fault": "timeout"})``.
    """
    made = []
    for stub in stubs:
        try:
            made.append(TypeAdapter(Stub).validate_python(stub))
        except ValidationError as error:
            raise ValueError(sentences(error, Stub, stub)) from None
    before = outside.boundary
    outside.boundary = StubbedTools(made, seed, before)
    try:
        yield
    finally:
        outside.boundary = before
