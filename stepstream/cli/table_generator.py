"""Make ``cli/table.py`` from the modules of the commands.

``python -m stepstream.cli.table_generator`` writes the file. A new command is one new module with
``register``, and this call.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import Final

import typer

from stepstream import cli

TABLE: Final = Path(__file__).with_name("table.py")
PANELS: Final = (
    "Run",
    "Check and prepare",
    "Inspect",
    "Act",
    "Tasks",
    "Policies, subscriptions, prices",
    "Evaluate",
    "Releases",
    "Data",
)
"""The groups of the overview, in its order."""

_HEAD: Final = '''\
"""Every command: made by ``python -m stepstream.cli.table_generator``; a test keeps it current.

A literal, so that the overview needs no import of the commands' modules.
"""

from __future__ import annotations

from typing import Final

from stepstream.cli.entry import Entry

COMMANDS: Final[dict[str, Entry]] = {
'''


def source() -> str:
    """The text of the table. Raises ValueError for a group that is not in ``PANELS``."""
    rows: list[tuple[int, str, str, str]] = []
    for module in pkgutil.iter_modules(cli.__path__):
        register = getattr(
            importlib.import_module(f"{cli.__name__}.{module.name}"), "register", None
        )
        if register is None:
            continue
        for name, text, panel in _commands(register):
            rows.append((PANELS.index(panel), name, module.name, text))
    lines = [_HEAD]
    for panel_index, name, module_name, text in sorted(rows):
        lines.append(f"    {_quoted(name)}: Entry(\n")
        lines += [
            f"        {_quoted(part)},\n" for part in (module_name, text, PANELS[panel_index])
        ]
        lines.append("    ),\n")
    return "".join([*lines, "}\n"])


def _commands(register: object) -> list[tuple[str, str, str]]:
    """Name, first sentence of the help and group of each command that a module registers."""
    from typer.main import get_command

    app = typer.Typer()
    # With one command Typer makes no group; the callback forces one.
    app.callback()(lambda: None)
    assert callable(register)
    register(app)
    tree = get_command(app)
    found = getattr(tree, "commands")  # noqa: B009  (its class depends on Typer's version)
    return [
        (name, _first_sentence(command.help or ""), command.rich_help_panel)
        for name, command in found.items()
    ]


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    TABLE.write_text(source(), encoding="utf-8")
