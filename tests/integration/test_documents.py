"""Documents on the config topic of a real broker: applied, shown, withdrawn, synced to folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stepstream.admin import documents
from stepstream.admin.documents import DocumentsError
from stepstream.admin.topics import TopicsError
from stepstream.cli.app import run
from stepstream.local.folder import DocumentFolder
from stepstream.schemas.documents import DOCUMENT
from stepstream.schemas.settings import Settings

POLICY = (
    "kind: Policy\nname: {name}\nmode: {mode}\nrules:\n  - {{rule: run_steps, limit: {limit}}}\n"
)


def write(file: Path, name: str, *, limit: int = 5, mode: str = "observe") -> Path:
    file.write_text(POLICY.format(name=name, limit=limit, mode=mode))
    return file


def test_applied_documents_are_in_force_until_withdrawn(settings: Settings, tmp_path: Path) -> None:
    """The newest record of a key counts; an equal one is not sent again; a tombstone ends it."""
    file = write(tmp_path / "p.yaml", "p")
    first = documents.apply(settings, documents.read_documents(file))
    assert [(change.key, change.what) for change in first] == [("policy/p", "created")]
    # The offset shows whether a record was written: an equal document must not make one.
    offset = documents.in_force(settings)["policy/p"].offset
    assert [
        change.what for change in documents.apply(settings, documents.read_documents(file))
    ] == ["unchanged"]
    assert documents.in_force(settings)["policy/p"].offset == offset
    changed = documents.read_documents(write(file, "p", limit=6))
    assert [change.what for change in documents.apply(settings, changed)] == ["changed"]
    stored = documents.in_force(settings)["policy/p"]
    assert stored.revision == 2
    assert DOCUMENT.validate_json(stored.value) == changed[0].document.model_copy(
        update={"revision": 2}
    )
    documents.withdraw(settings, "policy/p")
    assert documents.in_force(settings) == {}


def test_nothing_is_sent_while_anything_is_wrong(
    settings: Settings, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is applied as a whole or not at all; each problem is reported with its line."""
    write(tmp_path / "good.yaml", "good")
    (tmp_path / "bad.yaml").write_text("kind: Policy\nname: bad\nmood: observe")
    assert run(["apply", "-f", str(tmp_path), *place]) == 1
    assert (
        f"{tmp_path / 'bad.yaml'}:3: mood is unknown; did you mean mode?" in capsys.readouterr().err
    )
    assert documents.in_force(settings) == {}


def test_apply_get_and_delete_on_the_command_line(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person does with a policy, from its file to its end."""
    file = write(tmp_path / "p.yaml", "refunds", mode="enforce")
    assert run(["apply", "-f", str(file), "--dry-run", *place]) == 0
    captured = capsys.readouterr()
    assert captured.out == "policy/refunds would be created\n"
    assert captured.err == ""
    assert run(["apply", "-f", str(file), *place]) == 0
    assert capsys.readouterr().out == "policy/refunds created\n"
    assert run(["get", *place, "--format", "json"]) == 0
    assert [(row["kind"], row["name"]) for row in json.loads(capsys.readouterr().out)] == [
        ("Policy", "refunds")
    ]
    assert run(["get", "policies", "refunds", *place]) == 0
    shown = capsys.readouterr().out
    assert "rule: run_steps" in shown
    assert run(["get", "policy/refunds", *place]) == 0
    assert capsys.readouterr().out == shown
    assert run(["get", "policy", "refund", *place]) == 1
    assert "did you mean refunds?" in capsys.readouterr().err
    assert run(["delete", "policy", "refunds", *place]) == 0
    assert run(["delete", "policy", "refunds", *place]) == 1


def test_a_folder_is_kept_in_force(settings: Settings, tmp_path: Path) -> None:
    """What changes in it is applied, what leaves it is withdrawn, what others applied stays."""
    documents.apply(settings, documents.read_documents(write(tmp_path / "by-hand.yaml", "by-hand")))
    home = tmp_path / "watched"
    home.mkdir()
    write(home / "a.yaml", "a")
    write(home / "b.yaml", "b")
    reported: list[str] = []
    folder = DocumentFolder(settings, home, lambda _who, line: reported.append(line))
    folder.sync()
    assert list(documents.in_force(settings)) == ["policy/a", "policy/b", "policy/by-hand"]
    (home / "b.yaml").unlink()
    write(home / "a.yaml", "a", limit=9)
    # As after a restart.
    DocumentFolder(settings, home, lambda _who, line: reported.append(line)).sync()
    assert list(documents.in_force(settings)) == ["policy/a", "policy/by-hand"]
    assert reported == [
        "policy/a created",
        "policy/b created",
        "policy/a changed",
        "policy/b withdrawn",
    ]


def test_a_wrong_file_in_a_watched_folder_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    """A folder with one bad document changes nothing."""
    write(tmp_path / "a.yaml", "a")
    folder = DocumentFolder(settings, tmp_path, lambda _who, _line: None)
    folder.sync()
    write(tmp_path / "a.yaml", "a", limit=9)
    (tmp_path / "b.yaml").write_text("kind: Polcy")
    before = documents.in_force(settings)
    with pytest.raises(DocumentsError):
        folder.sync()
    assert documents.in_force(settings) == before


def test_every_revision_of_a_policy_is_kept(
    settings: Settings, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each change has the next number, also after the policy was deleted; any can be shown."""
    for limit in (5, 5, 6):
        file = write(tmp_path / "p.yaml", "p", limit=limit)
        documents.apply(settings, documents.read_documents(file))
    present = documents.in_force(settings)
    assert list(present) == ["policy/p"]
    assert present["policy/p"].revision == 2
    documents.withdraw(settings, "policy/p")
    documents.apply(settings, documents.read_documents(file))
    assert [one.revision for one in documents.revisions(settings, "policy/p")] == [3, 2, 1]
    assert run(["get", "policy", "p", "--revisions", "--format", "json", *place]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == ["p@3", "p@2", "p@1"]
    assert run(["get", "policy", "p@1", *place]) == 0
    shown = capsys.readouterr().out
    assert "limit: 5" in shown
    # What was shown can be applied again: the number in it is replaced.
    (tmp_path / "again.yaml").write_text(shown)
    documents.apply(settings, documents.read_documents(tmp_path / "again.yaml"))
    assert documents.in_force(settings)["policy/p"].revision == 4


def test_what_a_folder_holds_is_changed_in_the_folder(
    settings: Settings, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused by hand, because the folder would write it back; --force does it all the same."""
    home = tmp_path / "watched"
    home.mkdir()
    write(home / "a.yaml", "a")
    # The folder of a running `up`, which owns its documents from now on.
    DocumentFolder(settings, home, lambda _who, _line: None).sync()
    by_hand = write(tmp_path / "a.yaml", "a", limit=7)
    assert run(["apply", "-f", str(by_hand), *place]) == 1
    owned = f"policy/a is owned by {home / 'a.yaml'} (folder {home})"
    assert owned in capsys.readouterr().err
    assert run(["delete", "policy", "a", *place]) == 1
    assert owned in capsys.readouterr().err
    assert run(["apply", "-f", str(by_hand), "--force", *place]) == 0


def test_documents_without_topics_are_an_error_that_names_the_way(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """A wrong prefix looks like no documents otherwise."""
    with pytest.raises(
        TopicsError, match=r"there is no topic .*\.config: run `stepstream topics create`"
    ):
        documents.in_force(Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix))


def test_a_folder_may_have_a_file_whose_name_is_not_utf8(
    settings: Settings, tmp_path: Path
) -> None:
    """Names of files are bytes; a record names the file as far as it is text."""
    write(tmp_path / os.fsdecode(b"caf\xe9.yaml"), "p")
    folder = DocumentFolder(settings, tmp_path, lambda _who, _line: None)
    assert [change.key for change in folder.sync()] == ["policy/p"]
    assert documents.in_force(settings)["policy/p"].file == str(tmp_path / "caf?.yaml")
