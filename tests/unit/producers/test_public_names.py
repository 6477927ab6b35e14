"""Every public name of the SDK is on its page: docs/sdk.md."""

from __future__ import annotations

import re

import pytest

import stepstream
from stepstream.producers.opening import RunFields, StepFields
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "sdk.md").read_text()
# What is written as code on the page: `set_output(value)`, `Tracer.configure`, run.tool(...).
WORDS = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`|```.*?```", PAGE, re.DOTALL))))
# Called by the SDK itself: not for programs.
INTERNAL = {"after_fork", "engine", "resolved_settings"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - INTERNAL


def test_the_page_has_every_name_of_the_module() -> None:
    """``stepstream.__all__``."""
    assert sorted(set(stepstream.__all__) - WORDS) == []


@pytest.mark.parametrize("kind", [stepstream.Tracer, stepstream.Run, stepstream.Step])
def test_the_page_has_every_method(kind: type) -> None:
    """Methods and properties of the objects that a program works with."""
    assert sorted(public(kind) - WORDS) == []


@pytest.mark.parametrize("fields", [RunFields, StepFields])
def test_the_page_has_every_field_of_a_step(fields: type) -> None:
    """Keyword arguments of the functions that open steps."""
    assert sorted(set(fields.__annotations__) - WORDS) == []


def test_a_name_that_is_imported_late_is_the_real_one() -> None:
    """Names that are loaded on first use, ``on_alert`` and ``MemoryTransport`` among them."""
    from stepstream.producers.transport.memory import MemoryTransport
    from stepstream.sinks.subscribe import on_alert

    assert stepstream.on_alert is on_alert
    assert stepstream.MemoryTransport is MemoryTransport
