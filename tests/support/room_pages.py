"""The module maps in each package's README.md: ``python -m tests.support.room_pages`` writes them.

A map has one row per module: its name and the first sentence of its description. A package without
the markers ``<!-- begin modules -->`` and ``<!-- end modules -->`` has a map of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

_MARKED: Final = re.compile(r"(?<=<!-- begin modules -->\n).*?(?=<!-- end modules -->)", re.DOTALL)


def pages() -> Iterator[Path]:
    """Every README.md with a map."""
    for folder in (
        "producers",
        "schemas",
        "stream",
        "sinks",
        "console",
        "evals",
        "stepstream",
        "benchmarks",
        "tests",
    ):
        for path in sorted((ROOT / folder).rglob("README.md")):
            linked = any(part.is_symlink() for part in path.parents)
            if not linked and _MARKED.search(path.read_text()):
                yield path


def module_map(folder: Path) -> str:
    """The table of the modules in a folder, and of those folders in it that have no page."""
    rows = [f"| `{name}` | {text} |\n" for name, text in sorted(_entries(folder, ""))]
    return "| module | subject |\n|---|---|\n" + "".join(rows)


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith((".", "__pycache__")):
            continue
        if path.is_dir():
            if (path / "README.md").exists():
                yield f"{prefix}{path.name}/", f"see [its page]({prefix}{path.name}/README.md)"
            elif (path / "__init__.py").exists():
                yield from _entries(path, f"{prefix}{path.name}/")
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield f"{prefix}{path.stem}", _subject(path)


def _subject(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])|(?<=\w)::?$", paragraph)[0].rstrip(".:")
    return sentence.replace("|", "\\|").replace("``", "`")


def refreshed(path: Path) -> str:
    """The page with its map as it should be."""
    return _MARKED.sub(lambda _: module_map(path.parent), path.read_text())


if __name__ == "__main__":
    for page in pages():
        page.write_text(refreshed(page))
