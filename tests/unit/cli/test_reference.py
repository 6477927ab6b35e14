"""docs/cli.md and ``--help`` are made from the commands and the table of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from stepstream.cli.app import build, command_tree
from stepstream.cli.options import SETTINGS_PANEL, flag
from stepstream.cli.reference import markdown
from stepstream.schemas.settings import PROCESSES, Settings, setting_info, settings_of
from tests.support.paths import DOCS

PAGE = DOCS / "cli.md"
TREE = command_tree(build(everything=True))


def commands(command: Any = TREE, path: str = "stepstream") -> Iterator[tuple[str, Any]]:
    """Every command that can be called, with its path."""
    yield path, command
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, f"{path} {name}")


def test_the_page_is_current() -> None:
    """After a change of a command: python -m stepstream.cli.reference > docs/cli.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_command_is_on_the_page() -> None:
    """Each has a heading; each of its options stands below it."""
    text = PAGE.read_text(encoding="utf-8")
    for path, command in commands():
        if path == "stepstream":
            continue
        section = re.split(rf"^#+ {path}$", text, flags=re.MULTILINE)[1]
        section = re.split(r"^#+ stepstream", section, flags=re.MULTILINE)[0]
        missing = [one.opts for one in command.params if not one.hidden and one.name != "context"
                   and one.param_type_name == "option" and one.opts[0] not in section]  # fmt: skip
        assert missing == []


@pytest.mark.parametrize("process", [*PROCESSES, "up"])
def test_every_setting_of_a_process_has_a_flag(process: Any) -> None:
    """The settings that a process reads by the table are options of its command."""
    flags = {option for one in TREE.commands[process].params for option in one.opts}
    assert {flag(name) for name in settings_of(process)} <= flags


def test_up_has_the_flags_of_the_processes_that_it_starts() -> None:
    """They get its settings: a flag that only `worker` had could not be given to `up`."""
    flags = {option for one in TREE.commands["up"].params for option in one.opts}
    assert {flag(name) for name in settings_of(*PROCESSES)} <= flags


def test_help_names_the_form_of_every_value() -> None:
    """A value has a word in capitals such as DURATION or BYTES; a switch has none."""
    for path, command in commands():
        for option in command.params:
            if option.param_type_name != "option" or option.hidden:
                continue
            if option.is_flag:
                assert option.metavar == "", (path, option.opts)
            else:
                assert re.fullmatch(r"[A-Z][A-Z|.,:=]*(\.\.\.)?", option.metavar or ""), (
                    path,
                    option.opts,
                    option.metavar,
                )


def test_help_of_a_setting_has_type_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither has to be looked up in a document."""
    close_after = next(one for one in TREE.commands["worker"].params if one.name == "close_after")
    assert close_after.metavar == "DURATION"
    assert close_after.help.endswith("\\[default: 2s]")
    assert close_after.rich_help_panel == f"{SETTINGS_PANEL}{setting_info('close_after').section}"
    assert len(Settings.model_fields) > 80
