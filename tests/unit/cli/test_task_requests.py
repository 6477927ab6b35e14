"""``stepstream submit``, ``executor`` and the commands to tasks: errors that need no Kafka."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from stepstream.cli.app import run


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither settings nor a running ``up`` name an endpoint."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit", "refund"], 1, "there is no endpoint"),
        (["submit", "refund", "--input", "{order"], 2, "--input is not JSON"),
        (["submit", "refund", "--delay", "soon"], 2, "--delay='soon': not a duration"),
        (["submit", "refund", "--attempts", "0"], 2, "a whole number from 1 to 100"),
        (["submit", "refund", "--budget", "0"], 2, "dollars, more than 0"),
        (["submit", "refund", "--wait", "soon"], 2, "--wait: not a duration"),
        (["cancel", "order-7"], 1, "there is no endpoint"),
        (["retry", "bad\nid"], 2, "without control characters"),
        (["drain", "x"], 2, "no Kafka is known"),
        (["executor", "tests.support.executor_app:app"], 1, "an executor needs Kafka"),
        (["executor", "tests.support.executor_app:ap"], 2, "did you mean app?"),
        (["executor", "agents.py"], 2, "such as agents:app"),
        (["executor", "tests.support.executor_app:app", "--drain", "x"], 1, "needs Kafka"),
    ],
)
def test_each_error_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The command gives its settings to the agents by the environment, which must not stay.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run(arguments) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "unexpected" not in shown


def test_an_input_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "input.json"
    file.write_text("[1")
    assert run(["submit", "refund", "--input", f"@{file}"]) == 2
    assert f"{file} is not JSON" in capsys.readouterr().err
    assert run(["submit", "refund", "--input", f"@{tmp_path}/none"]) == 1
    assert "no such file" in capsys.readouterr().err
