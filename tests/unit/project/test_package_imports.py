"""The architecture's rules: which package may import which, pure logic, readable modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.package_rules import MAY_IMPORT
from tests.support.paths import ROOT

PACKAGES: Final = ("schemas", "producers", "stream", "sinks", "console", "evals")
FACE: Final = "stepstream"
SERVERS: Final = (
    "http.server",
    "socketserver",
    "wsgiref.simple_server",
    "xmlrpc.server",
    "aiohttp.web",
)
# Packages whose modules are imported by `from PACKAGE import MODULE`.
WHOLE: Final = (FACE, *(name.partition(".")[0] for name in SERVERS))

# Entry points read the environment when they are called, not when they are imported.
LAZILY: Final = ("stepstream.common.settings",)

# Engines that only one package may import: the SDK runs within agents and must stay small, and a
# store must be replaceable without the worker.
ENGINES: Final = {
    "faust": {"stream"},
    "aiokafka": {"stream"},
    "mode": {"stream"},
    "clickhouse_connect": {"sinks"},
    "chdb": {"sinks"},
}
# The shell around the worker's logic: the rest of the package knows neither framework nor clock.
STREAM_SHELL: Final = "stream/shell/"
IMPURE: Final = {"faust", "aiokafka", "mode", "asyncio", "threading", "time", "datetime", "random"}
INPUT_OUTPUT: Final = {
    "asyncio", "confluent_kafka", "http", "logging", "pathlib", "random", "socket", "sqlite3",
    "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib",
}  # fmt: skip
# Loads what other packages define, once per process, and logs what cannot be loaded.
LOADER: Final = "schemas/extensions.py"
# Programs that talk to the process that started them.
TALKERS: Final = (
    "stepstream/cli/",
    "stepstream/local/up.py",
    "stepstream/local/processes/launcher.py",
)


@dataclass(frozen=True)
class Import:
    """A name imported, and whether that happens when the module is."""

    name: str
    at_once: bool
    relative: bool = False

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """A file of the product, parsed."""

    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def package(self) -> str:
        return self.name.partition("/")[0]


def _imports(tree: ast.Module) -> Iterator[Import]:
    """Every import of a module; those in functions, TYPE_CHECKING and __main__ are deferred."""
    later = {id(node) for block in ast.walk(tree) if _is_later(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        at_once = id(node) not in later
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                name = f"{base}.{alias.name}" if _is_whole(base) else base
                yield Import(name, at_once, relative=node.level > 0)


def _is_whole(package: str) -> bool:
    return package in WHOLE or within(package, (FACE,))


def calls(tree: ast.AST, *names: str) -> list[ast.Call]:
    found = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    return [node for node in found if isinstance(node.func, ast.Name) and node.func.id in names]


def prints(module: Module) -> list[int]:
    """Lines that write to standard output, except under ``__main__``."""
    body = [
        node
        for node in module.tree.body
        if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    ]
    found = [call for node in body for call in calls(node, "print")]
    return [
        call.lineno for call in found if "file" not in {keyword.arg for keyword in call.keywords}
    ]


def _is_later(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return any(word in ast.unparse(node.test) for word in ("TYPE_CHECKING", "__main__"))
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# When the first test needs it, not on import: each process of a parallel run imports this file, and
# parsing the product takes seconds.
@cache
def modules() -> list[Module]:
    """The product's files, parsed."""
    links = {ROOT / FACE / package for package in PACKAGES}
    files = [
        path
        for folder in (*PACKAGES, FACE)
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not links & {path, *path.parents}
    ]
    trees = [ast.parse(path.read_text(), str(path)) for path in files]
    return [
        Module(path, tree, tuple(_imports(tree))) for path, tree in zip(files, trees, strict=True)
    ]


@cache
def by_name() -> dict[str, Module]:
    """The modules by the name that imports them."""
    return {
        (f"{FACE}." if module.package != FACE else "")
        + module.name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): module
        for module in modules()
    }


PROGRAMS: Final = ("tests", "benchmarks")


def package_of(path: str) -> str:
    """The package of a file of the product."""
    parts = path.split("/")[:-1]
    nested = "/".join(parts[:2])
    return nested if nested in MAY_IMPORT else parts[0]


def _ours(module: Module) -> Iterator[tuple[Import, Module]]:
    """The imports of the project's modules, also those under TYPE_CHECKING."""
    for i in module.imports:
        parts = i.name.split(".")
        for end in range(len(parts), 0, -1):
            found = by_name().get(".".join(parts[:end]))
            if found is not None:
                if found is not module:
                    yield i, found
                break


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles of a graph, each as sorted members (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for following in sorted(graph.get(node, ())):
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in path:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            circle = path[path.index(node) :]
            del path[path.index(node) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_packages_import_only_what_they_may() -> None:
    """The rules of docs/architecture.md, for imports in functions and TYPE_CHECKING as well."""
    wrong = set()
    for module in modules():
        package = package_of(module.name)
        for _, other in _ours(module):
            target = package_of(other.name)
            if target not in {package, *MAY_IMPORT[package]}:
                wrong.add(f"{module.name} imports {other.name}")
    assert sorted(wrong) == []


def test_the_rules_themselves_have_no_circle() -> None:
    """Packages are layered: each imports packages below it."""
    # The rules could allow a circle that no module has made use of yet.
    assert _circles(MAY_IMPORT) == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    """A circle is one module in several files: none of them can be understood or tested alone."""
    graph = {module.name: {other.name for _, other in _ours(module)} for module in modules()}
    # A package's __init__.py names what its modules define.
    graph = {
        name: {other for other in others if not other.endswith("__init__.py")}
        for name, others in graph.items()
    }
    assert _circles(graph) == []


def test_circles_are_found() -> None:
    """Also one that passes through several modules."""
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_settings_are_read_when_a_program_runs() -> None:
    """Entry points read the environment when they are called, not when they are imported."""
    early = [
        f"{module.name}: {i.name}"
        for module in modules()
        if module.package in PACKAGES
        for i in module.imports
        if i.at_once and within(i.name, LAZILY)
    ]
    assert early == []


def test_engines_stay_in_their_packages() -> None:
    """Only the worker imports the stream framework, only the sink the ClickHouse clients."""
    at_once = [
        (module, i)
        for module in modules()
        for i in module.imports
        if i.at_once and i.top in ENGINES
    ]
    assert {i.top for _, i in at_once} >= {"faust", "clickhouse_connect"}
    assert [
        f"{module.name}: {i.name}" for module, i in at_once if module.package not in ENGINES[i.top]
    ] == []


def test_there_is_one_web_server() -> None:
    """Only ``stepstream.common.web`` answers HTTP, in tests and benchmarks too."""
    # The server of the standard library has no limits, reads headers leniently, and would be a
    # second implementation to keep safe.
    files = [path for folder in PROGRAMS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        path.relative_to(ROOT).as_posix(): _imports(ast.parse(path.read_text(), str(path)))
        for path in files
    }
    found |= {module.name: iter(module.imports) for module in modules()}
    assert len(found) > len(modules())
    assert (
        sorted(
            {name for name, imports in found.items() for i in imports if within(i.name, SERVERS)}
        )
        == []
    )
    for line in (
        "import http.server",
        "from http.server import HTTPServer",
        "from http import server",
    ):
        assert all(within(i.name, SERVERS) for i in _imports(ast.parse(line)))


def test_imports_are_absolute_and_by_the_package_s_name() -> None:
    """``from stepstream.schemas import ...``: neither relative nor by the folder's name."""
    assert [
        f"{m.name}: {i.name}"
        for m in modules()
        for i in m.imports
        if i.relative or i.top in PACKAGES
    ] == []


def test_modules_have_a_docstring() -> None:
    """The first lines of a module describe its purpose."""
    written = [module for module in modules() if module.path.read_text().strip()]
    assert [module.name for module in written if not ast.get_docstring(module.tree)] == []


def test_only_programs_print() -> None:
    """Only the command line, the demo and programs write to standard output."""
    libraries = [
        m for m in modules() if not m.name.startswith(TALKERS) and m.path.name != "__main__.py"
    ]
    assert [f"{module.name}:{line}" for module in libraries for line in prints(module)] == []


def test_schemas_are_pure() -> None:
    """What crosses a wire is described without touching files, networks, threads or clocks."""
    schemas = [m for m in modules() if m.package == "schemas" and m.name != LOADER]
    assert [
        f"{module.name}: {i.name}"
        for module in schemas
        for i in module.imports
        if i.top in INPUT_OUTPUT
    ] == []
    assert [
        module.name for module in schemas if calls(module.tree, "open", "input", "exec", "eval")
    ] == []


def test_the_worker_s_logic_knows_no_framework_and_no_clock() -> None:
    """Reassembly and detection depend on records and passed times only, so replays are equal."""
    logic = [
        module
        for module in modules()
        if module.package == "stream" and not module.name.startswith(STREAM_SHELL)
    ]
    assert [
        f"{module.name}: {i.name}" for module in logic for i in module.imports if i.top in IMPURE
    ] == []


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without __init__.py imports here, but mypy and distributions leave it out."""
    assert (
        sorted({m.path.parent for m in modules() if not (m.path.parent / "__init__.py").exists()})
        == []
    )


def test_the_links_lead_to_the_packages() -> None:
    """``stepstream/<package>`` is a link to the real folder at the top: one source, no copy."""
    for package in PACKAGES:
        link = ROOT / FACE / package
        assert link.is_symlink()
        assert link.resolve() == ROOT / package
        assert not (ROOT / package).is_symlink()
