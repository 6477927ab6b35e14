"""docs/cli.md, made from the commands: ``python -m stepstream.cli.reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from typer.core import TyperArgument

from stepstream.cli.app import build, command_tree
from stepstream.cli.options import SETTINGS_PANEL
from stepstream.schemas.settings import Settings

HEAD: Final = """\
# Commands

<!-- Made by `python -m stepstream.cli.reference`; a test keeps it current. -->

`stepstream COMMAND --help` prints the same with the defaults of the settings. Every setting of a
process is a flag of the commands that read it; [settings](settings.md) explains them, and how to
set them in the environment or in a file instead.

## Exit codes

| code | meaning |
|---|---|
| 0 | Done. |
| 1 | Failed, or a check found a problem. |
| 2 | Wrong usage: an unknown command or option, a wrong value, a wrong or missing setting. |
| 3 | A port that was asked for is taken. |
| 130 | Interrupted by Ctrl-C. |

After a failure the line on stderr names the cause. `doctor`, `store status`, `store reconcile`,
`validate` and `replay` exit with 1 when they find a problem, `ready` when a process is not ready.

## Global options

They stand before the command: `stepstream --settings FILE runs`.
"""


def markdown() -> str:
    """The whole page."""
    # For the overview commands are only listed; here their options are needed, so all are imported.
    tree = command_tree(build(everything=True))
    parts = [HEAD, *_options(tree)]
    for name in sorted(tree.commands):
        parts += _command(f"stepstream {name}", tree.commands[name], level=2)
    return "\n".join(parts).rstrip() + "\n"


def _command(path: str, command: Any, *, level: int) -> Iterator[str]:
    """The section of a command, then those of its subcommands."""
    subcommands = getattr(command, "commands", {})
    yield f"\n{'#' * level} {path}\n"
    yield _text(command.help)
    if not subcommands:
        yield f"\n    {_usage(path, command)}\n"
    yield from _options(command)
    flags = [_flag(option) for option in command.params if _is_setting(option)]
    if flags:
        yield f"\nSettings: {', '.join(flags)}."
    for name in subcommands:
        yield from _command(f"{path} {name}", subcommands[name], level=level + 1)


def _usage(path: str, command: Any) -> str:
    arguments = [_metavar(one) for one in command.params if isinstance(one, TyperArgument)]
    return " ".join([path, "[OPTIONS]", *arguments])


def _options(command: Any) -> Iterator[str]:
    """A table of the command's own arguments and options; nothing where it has none."""
    own = [one for one in command.params if not _is_setting(one) and not one.hidden]
    own = [one for one in own if one.name not in ("help", *_COMPLETION)]
    if not own:
        return
    yield "\n| argument or option | default | meaning |\n|---|---|---|"
    # Arguments first, as in the usage line; the order is otherwise that of the code.
    for one in sorted(own, key=lambda one: not isinstance(one, TyperArgument)):
        yield f"| {_signature(one)} | {_default(one)} | {_cell(one.help or '')} |"


_COMPLETION: Final = ("install_completion", "show_completion")


def _signature(option: Any) -> str:
    """`--since DURATION`, `--last`, `ID`."""
    metavar = "" if getattr(option, "is_flag", False) else _metavar(option)
    if isinstance(option, TyperArgument):
        return f"`{metavar}`"
    return f"`{_cell(' '.join([', '.join(option.opts), metavar]).strip())}`"


def _metavar(option: Any) -> str:
    return str(option.metavar or option.name.upper())


def _default(option: Any) -> str:
    value = option.default
    if value is None or value == "" or value is False or callable(value) or option.required:
        return ""
    return f"`{value}`"


def _is_setting(option: Any) -> bool:
    # A command may have an option of its own with a setting's name, such as --project.
    panel = getattr(option, "rich_help_panel", None) or ""
    return option.name in Settings.model_fields and panel.startswith(SETTINGS_PANEL)


def _flag(option: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    return f"`{'`/`'.join(names)}`"


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _cell(text: str) -> str:
    # Help texts escape brackets for the terminal; a bar would end the cell.
    return " ".join(text.replace("\\[", "[").replace("|", "\\|").split())


if __name__ == "__main__":
    print(markdown(), end="")
