"""The code blocks of the project's documents: fenced by language, indented ones as shell."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*$")
# Its blocks are usage lines, made from the commands themselves.
GENERATED = {"docs/cli.md"}
# An indented block is shell where its first line is one of these; others show output.
_COMMANDS = re.compile(
    r"^(?:[A-Z_]+=\S+ )*"
    r"(?:stepstream|make|python|pip|docker|printf|chmod|set|export|\.venv/bin/\S+)(?:\s|$)"
)


@dataclass(frozen=True)
class Block:
    """One block: where it begins, its language (``python``, ``yaml``, ``shell`` ...), its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without comments and prompts, continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        found = (re.sub(r"\s+#.*$", "", line).strip() for line in joined.splitlines())
        if self.language == "console":
            # Lines without a prompt are the output of the command above them.
            return [line.removeprefix("$ ") for line in found if line.startswith("$ ")]
        return [line for line in found if line and not line.startswith("#")]


def pages() -> list[Path]:
    """README, CONTRIBUTING, the pages of docs, and the pages of packages."""
    folders = ("producers", "schemas", "stream", "sinks", "console", "stepstream", "benchmarks")
    packages = [
        page
        for folder in (*folders, "tests", "examples", "evals", "clients")
        for page in sorted((ROOT / folder).rglob("*.md"))
        if page.name in ("README.md", "API.md")
        and not any(part.is_symlink() or part.name == "node_modules" for part in page.parents)
    ]
    top = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [*top, *sorted((ROOT / "docs").glob("*.md")), *packages]


def blocks() -> list[Block]:
    """Every block of every page."""
    return [
        block
        for page in pages()
        if page.relative_to(ROOT).as_posix() not in GENERATED
        for block in _blocks_of(page)
    ]


def _blocks_of(page: Path) -> Iterator[Block]:
    name = page.relative_to(ROOT).as_posix()
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is not None:
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip().startswith("```"))
            text = textwrap.dedent("\n".join(lines[at + 1 : end]))
            yield Block(name, at + 1, fence["language"] or "text", text)
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = textwrap.dedent("\n".join(lines[at:end])).strip("\n")
            yield Block(name, at + 1, "shell" if _COMMANDS.match(text) else "text", text)
            at = end
        else:
            at += 1
