"""The modules of the SDK import one another in one direction."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.support.paths import ROOT


def _imports_of_the_room() -> dict[str, set[str]]:
    """Modules and what each imports, those in functions and for type checking included."""
    files = {
        f"stepstream.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}": path
        for path in (ROOT / "producers").rglob("*.py")
    }
    graph: dict[str, set[str]] = {name.removesuffix(".__init__"): set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = {f"{node.module}.{alias.name}" for alias in node.names}
                imported = modules & graph.keys() or {node.module}
            else:
                continue
            graph[name.removesuffix(".__init__")] |= imported & graph.keys()
    return graph


def test_no_module_is_in_an_import_cycle() -> None:
    """Also not by imports under TYPE_CHECKING: a reader meets those as well."""
    graph = _imports_of_the_room()
    # The modules were found: an empty graph has no cycle either.
    assert len(graph) > 50
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
