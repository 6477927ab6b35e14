"""A function that is called when a module has been imported."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from stepstream.producers.instruments.imports import AfterImport

NAME = "imported_slowly"
PROGRAM = """
import imported_slowly_signals as signals
signals.begun.set()
assert signals.go_on.wait(30)
value = 7
"""


@pytest.fixture
def signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    made = SimpleNamespace(begun=threading.Event(), go_on=threading.Event())
    (tmp_path / f"{NAME}.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "imported_slowly_signals", made)
    yield made
    sys.modules.pop(NAME, None)


def values(found: list[ModuleType]) -> list[int]:
    return [module.value for module in found]


def test_a_module_that_another_thread_is_importing(signals: SimpleNamespace) -> None:
    """It is waited for: the function gets the whole module."""
    found: list[ModuleType] = []
    thread = threading.Thread(target=importlib.import_module, args=(NAME,))
    thread.start()
    assert signals.begun.wait(30)
    # The call below begins while the module is half imported.
    later = threading.Timer(0.05, signals.go_on.set)
    later.start()
    AfterImport().call(NAME, found.append)
    assert values(found) == [7]
    for one in (thread, later):
        one.join(30)


def test_a_module_that_is_imported_later(signals: SimpleNamespace) -> None:
    """Once, and it keeps its own loader."""
    found: list[ModuleType] = []
    signals.go_on.set()
    after = AfterImport()
    try:
        after.call(NAME, found.append)
        assert not found
        module = importlib.import_module(NAME)
        after.call(NAME, found.append)
    finally:
        after.clear()
    assert values(found) == [7, 7]
    assert isinstance(module.__loader__, importlib.machinery.SourceFileLoader)
    assert after not in sys.meta_path
