"""``stepstream keys``: made per project, shown once, rotated without a gap, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstream.cli.app import run
from stepstream.common.web.credentials import load, split_token


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials.json"
    monkeypatch.setenv("STEPSTREAM_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(tmp_path))
    return path


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["keys", *arguments])
    out, err = capsys.readouterr()
    return code, out.strip(), err.strip()


def verified(file: Path, token: str) -> set[str] | None:
    """The projects of a token that is right; None for one that is not."""
    pair = split_token(token)
    assert pair is not None
    found = load(file).verify(*pair, client="127.0.0.1", now_s=0.0)
    return None if found is None else set(found.projects)


def test_a_key_is_for_its_projects(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file holds a hash alone; the name comes from the project."""
    code, token, printed = command(capsys, "create", "My Shop", "billing")
    assert code == 0
    assert token.startswith("stepstream_my-shop.")
    assert "my-shop" in printed
    assert verified(file, token) == {"My Shop", "billing"}
    # The part after the point is the secret; the part before it is the name.
    assert token.partition(".")[2] not in file.read_text()
    entry = load(file).get("my-shop")
    assert entry is not None
    assert entry.scopes == {"ingest"}
    _, listed, _ = command(capsys, "list", "--format", "csv")
    assert "my-shop" in listed


def test_rotating_leaves_no_gap(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both keys are right until the old one is removed."""
    _, old, _ = command(capsys, "create", "shop", "--act")
    _, new, printed = command(capsys, "rotate", "shop")
    assert "shop stays valid" in printed
    assert verified(file, old) == verified(file, new) == {"shop"}
    assert command(capsys, "remove", "shop")[0] == 0
    assert verified(file, old) is None
    assert verified(file, new) == {"shop"}
    _, newest, _ = command(capsys, "rotate", "shop-2", "--now")
    assert verified(file, new) is None
    pair = split_token(newest)
    assert pair is not None
    entry = load(file).get(pair[0])
    assert entry is not None
    assert entry.scopes == {"ingest", "act"}


def test_what_is_no_key_is_neither_rotated_nor_removed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users of the admin API are not the business of this command."""
    assert run(["credentials", "add", "grafana", "--scope", "read"]) == 0
    capsys.readouterr()
    for arguments in (("rotate", "grafana"), ("remove", "grafana"), ("remove", "unknown")):
        code, _, printed = command(capsys, *arguments)
        assert code == 1
        assert "keys list" in printed
    assert load(file).get("grafana") is not None
    command(capsys, "create", "shop")
    code, _, printed = command(capsys, "create", "shop", "--name", "shop")
    assert code == 1
    assert "rotate" in printed
