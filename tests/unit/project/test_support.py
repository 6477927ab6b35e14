"""Shared test code is in tests/support: no test imports another, and there is one way to wait."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

TESTS: Final = ROOT / "tests"
# The chaos suite is a program of its own; its load generator has unit tests.
SUBJECTS: Final = {"unit/chaos": ("tests.chaos",)}
WAITING: Final = ("wait_until", "until", "eventually", "wait_for", "wait_while")


def _modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders or (".",):
        for path in sorted((TESTS / folder).rglob("*.py")):
            yield path.relative_to(TESTS).as_posix(), ast.parse(path.read_text(), str(path))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_test_imports_another_test() -> None:
    """A test file can be renamed, split or run alone without any other."""
    wrong = [
        f"{name}: {imported}"
        for name, tree in _modules()
        for imported in _imported(tree)
        if imported.startswith("tests.")
        and any(part.startswith("test_") for part in imported.split(".")[:-1])
    ]
    assert wrong == []


def test_unit_tests_import_support_alone() -> None:
    """They need neither engines nor the helpers of tests that start some."""
    wrong = []
    for name, tree in _modules("unit"):
        allowed = ("tests.support", *SUBJECTS.get(str(Path(name).parent), ()))
        wrong += [
            f"{name}: {imported}"
            for imported in _imported(tree)
            if imported.startswith("tests.") and not imported.startswith(allowed)
        ]
    assert wrong == []


def test_support_imports_no_tests() -> None:
    """It is below every kind of test."""
    wrong = [
        f"{name}: {imported}"
        for name, tree in _modules("support")
        for imported in _imported(tree)
        if imported.startswith("tests.") and not imported.startswith("tests.support")
    ]
    assert wrong == []


def test_there_is_one_wait_until() -> None:
    """Its error states what was expected; a copy would not."""
    found = [
        f"{name}: {node.name}"
        for name, tree in _modules()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.lstrip("_") in WAITING
    ]
    # There were eleven copies, with different time-outs and without an error that helps.
    assert found == ["support/processes.py: wait_until"]
