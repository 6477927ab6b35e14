"""Commands that need no server: settings, schema, validate, version."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from stepstream.cli.app import run
from stepstream.schemas import CONTRACTS
from stepstream.schemas.settings import Settings


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")


def event(**fields: Any) -> str:
    """A valid end event of now."""
    now = time.time_ns() // 1000
    base = {
        "trace_id": "ab" * 16,
        "step_id": "cd" * 8,
        "phase": "end",
        "kind": "tool_call",
        "name": "x",
        "start_time": now,
        "end_time": now + 5,
    }
    return json.dumps(base | fields)


def test_settings_are_listed_with_value_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each setting once, with where it comes from; of a secret only that it is set."""
    (tmp_path / "mine.toml").write_text('clickhouse_password = "hunter2"\nclose_after = "90s"\n')
    monkeypatch.setenv("STEPSTREAM_AGENT", "support")
    assert run(["--settings", str(tmp_path / "mine.toml"), "settings", "--format", "json"]) == 0
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(out)}
    # A setting that is missing in this list could not be found out.
    assert list(rows) == list(Settings.model_fields)
    assert (rows["agent"]["value"], rows["agent"]["source"]) == ("support", "STEPSTREAM_AGENT")
    assert (rows["close_after"]["value"], rows["close_after"]["source"]) == (
        90_000_000,
        str(tmp_path / "mine.toml"),
    )
    assert rows["clickhouse_password"]["value"] == "(set)"
    assert "hunter2" not in out


def test_a_listing_is_also_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """With a header, quoted where needed."""
    assert run(["settings", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows] == list(Settings.model_fields)
    assert rows[0]["meaning"] == Settings.model_fields["endpoint"].description


def test_a_listing_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a line, whole, whatever the terminal's width would be."""
    assert run(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(Settings.model_fields)
    assert all(
        str(field.description) in line
        for field, line in zip(Settings.model_fields.values(), lines[1:], strict=True)
    )


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_is_exported_as_json_schema(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stepstream schema NAME` is the model's own schema, whatever the case of the name."""
    assert run(["schema", name.lower()]) == 0
    assert json.loads(capsys.readouterr().out) == CONTRACTS[name].model_json_schema()


def test_contracts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name: every contract with what it is."""
    assert run(["schema"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(CONTRACTS)


def test_a_good_file_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and the count; blank lines are nothing."""
    (tmp_path / "good.jsonl").write_text(f"{event()}\n\n{event(phase='start', end_time=None)}\n")
    assert run(["validate", str(tmp_path / "good.jsonl")]) == 0
    assert capsys.readouterr().out == "2 accepted, 0 clamped, 0 rejected\n"


def test_what_would_be_refused_is_reported_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line, outcome, reason and detail as the worker would report them; exit code 1."""
    lines = [
        event(),
        "{",
        event(trace_id="xyz"),
        event(kind="dance"),
        # Microseconds after 1970: older than anything that is stored.
        event(start_time=5, end_time=5),
    ]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    assert run(["validate", str(tmp_path / "bad.jsonl"), "--format", "json"]) == 1
    captured = capsys.readouterr()
    found = [(row["line"], row["outcome"], row["reason"]) for row in json.loads(captured.out)]
    assert found == [
        (2, "rejected", "malformed_json"),
        (3, "rejected", "invalid_field"),
        (4, "clamped", "unknown_kind"),
        (5, "rejected", "time_out_of_range"),
    ]
    assert "1 accepted, 1 clamped, 3 rejected" in captured.err


def test_an_old_recording_may_be_validated_at_its_own_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`replay` shifts times to now, so their age alone is no fault."""
    (tmp_path / "old.jsonl").write_text(event(start_time=5, end_time=5))
    assert run(["validate", str(tmp_path / "old.jsonl")]) == 1
    assert run(["validate", str(tmp_path / "old.jsonl"), "--any-time"]) == 0
    assert "1 accepted" in capsys.readouterr().out.splitlines()[-1]


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The path and the reason."""
    assert run(["validate", "nowhere.jsonl"]) == 1
    assert capsys.readouterr().err == "error: nowhere.jsonl: no such file or directory\n"


def test_versions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """What a bug report needs: our version, Python, what it runs on."""
    assert run(["version", "--format", "json"]) == 0
    found = {row["what"]: row["version"] for row in json.loads(capsys.readouterr().out)}
    assert {
        "stepstream",
        "python",
        "confluent-kafka",
        "faust-streaming",
        "chdb",
        "platform",
    } <= found.keys()
    assert found["stepstream"]
