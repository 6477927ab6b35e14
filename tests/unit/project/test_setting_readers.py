"""The table of settings names the processes that read a setting: compared with the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stepstream.schemas.settings import Settings, setting_info
from tests.support.paths import ROOT

# The code of a process. What it shares with others (stepstream.common) is not counted.
CODE = {
    "sdk": ["producers"],
    "worker": ["stream"],
    "sink": ["sinks/clickhouse", "sinks/batching"],
    "notify": ["sinks/notify"],
    "gateway": ["producers/gateway"],
}
# Read by every process that connects to Kafka or ClickHouse.
SHARED = {"kafka", "clickhouse"}
# Code that commands run and not the process itself.
COMMANDS = {"sinks/clickhouse/backup.py"}


def settings_read(file: Path) -> set[str]:
    """Settings that the file reads as an attribute of something called ``...settings``."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in Settings.model_fields:
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name.endswith("settings"):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("process", sorted(CODE))
def test_a_process_reads_only_its_settings(process: str) -> None:
    """A setting that is read without being declared would have no flag and no place in the docs."""
    read = {
        name
        for folder in CODE[process]
        for file in (ROOT / folder).rglob("*.py")
        if file.relative_to(ROOT).as_posix() not in COMMANDS
        if process == "gateway" or "gateway" not in file.parts
        for name in settings_read(file)
    }
    assert len(read) > 3
    undeclared = {
        name for name in read if not {process, *SHARED}.intersection(setting_info(name).processes)
    }
    assert undeclared == set()
