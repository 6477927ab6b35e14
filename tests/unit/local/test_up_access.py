"""Users of `up`: made once per data folder, found by every program of this user, shown by none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from stepstream.cli.app import run
from stepstream.common import endpoints
from stepstream.common.login import Login
from stepstream.common.process import identity_of
from stepstream.common.settings import load, resolve, to_environment
from stepstream.common.web.credentials import load as load_table
from stepstream.common.web.credentials import split_token, token_of
from stepstream.local.embedded.access import prepare
from stepstream.local.embedded.errors import LocalError
from stepstream.local.supervisor import SECRETS_OF
from stepstream.schemas.settings import SECRETS, Settings, setting_info, split_login
from stepstream.sinks.clickhouse.client import login, url_for_clients
from stepstream.sinks.clickhouse.errors import StoreError

WRITER, READER, KAFKA = (
    Login("default", "w-secret"),
    Login("reader", "r-secret"),
    Login("stepstream", "k-secret"),
)


def verified(file: Path, one: Login) -> bool:
    return load_table(file).verify(one.user, one.password, client="", now_s=0) is not None


def test_users_are_made_once_and_kept(tmp_path: Path) -> None:
    """Random, different from each other, in files of mode 0600.

    Only hashes are in the table that servers read.
    """
    first = prepare(tmp_path)
    before = first.file.read_text()
    assert prepare(tmp_path) == first
    assert first.file.read_text() == before
    secrets = {first.writer.password, first.reader.password, first.kafka.password}
    assert len(secrets) == 3
    assert all(
        len(secret) == 64 and secret not in before and secret not in repr(first)
        for secret in secrets
    )
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "credentials.json": 0o600,
        "secrets.json": 0o600,
    }
    assert verified(first.file, first.writer)
    assert verified(first.file, first.reader)
    table = load_table(first.file)
    assert {one.name: sorted(one.scopes) for one in table} == {
        "default": ["act", "admin", "ingest", "read"],
        "reader": ["read"],
    }


def test_a_password_of_the_operator_replaces_the_random_one_and_back(tmp_path: Path) -> None:
    """Others in the table stay; a password that has not changed is not hashed again."""
    random = prepare(tmp_path)
    assert (
        run(["credentials", "add", "grafana", "--scope", "read", "--data-dir", str(tmp_path)]) == 0
    )
    chosen = prepare(tmp_path, writer_password="hunter2")
    assert (chosen.writer.password, chosen.reader) == ("hunter2", random.reader)
    assert verified(chosen.file, chosen.writer)
    assert not verified(chosen.file, random.writer)
    # Hashing is slow on purpose; at each start it would cost time and change the file.
    hashed = chosen.file.read_text()
    prepare(tmp_path, writer_password="hunter2")
    assert chosen.file.read_text() == hashed
    assert verified(prepare(tmp_path).file, random.writer)
    assert load_table(chosen.file).get("grafana") is not None
    named = prepare(tmp_path, writer_user="etl", writer_password="hunter2")
    assert [one.name for one in load_table(named.file)] == ["reader", "grafana", "etl"]


@pytest.mark.parametrize(
    ("name", "text"), [("secrets.json", "{"), ("secrets.json", "[]"), ("credentials.json", "{}")]
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, text: str) -> None:
    prepare(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(LocalError, match=name):
        prepare(tmp_path)


def test_a_writer_called_like_the_reader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="clickhouse_user cannot be 'reader'"):
        prepare(tmp_path, writer_user="reader")
    with pytest.raises(LocalError, match="'A B' is not a credential's name"):
        prepare(tmp_path, writer_user="A B")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h:8123", ("http://h:8123", "", "")),
        ("http://u:p@h:8123/", ("http://h:8123/", "u", "p")),
        ("https://u:p%40%2F%25%3A@h", ("https://h", "u", "p@/%:")),
        ("https://u@h", ("https://h", "u", "")),
        ("http://u:a@b@h:1", ("http://h:1", "u", "a@b")),
        ("http://h/path@x", ("http://h/path@x", "", "")),
        ("", ("", "", "")),
        ("nonsense", ("nonsense", "", "")),
    ],
)
def test_a_login_in_a_url_is_taken_out_of_it(url: str, parts: tuple[str, str, str]) -> None:
    assert split_login(url) == parts
    if parts[1]:
        assert split_login(Login(parts[1], parts[2]).url(parts[0])) == parts


def environ(home: Path, **variables: str) -> dict[str, str]:
    return {"STEPSTREAM_STATE_DIR": str(home), "STEPSTREAM_SETTINGS": os.devnull, **variables}


def running_here(home: Path) -> None:
    """An ``up`` that is this very process."""
    known = identity_of(os.getpid())
    found = endpoints.Endpoints(
        kafka="127.0.0.1:1111",
        clickhouse="http://127.0.0.1:2222",
        pid=os.getpid(),
        began=known.began if known else "",
        others={"notify": "http://127.0.0.1:3333"},
        writer=WRITER,
        reader=READER,
        kafka_login=KAFKA,
        notify_token=token_of("default", "w-secret"),
    )
    endpoints.write(home, found)
    assert endpoints.read(home) == found


def test_what_up_wrote_is_found_with_nothing_set(tmp_path: Path) -> None:
    """Every program of this user has the right user and password; none is shown."""
    running_here(tmp_path)
    assert (tmp_path / endpoints.FILE_NAME).stat().st_mode & 0o777 == 0o600
    resolved = resolve(environ=environ(tmp_path))
    settings = resolved.settings
    assert login(settings, readonly=False) == (WRITER.user, WRITER.password)
    assert login(settings, readonly=True) == (READER.user, READER.password)
    assert settings.kafka["sasl.password"] == KAFKA.password
    assert (settings.notify_url, settings.notify_token.get_secret_value()) == (
        "http://127.0.0.1:3333",
        token_of("default", "w-secret"),
    )
    assert resolved.sources["clickhouse_password"] == "stepstream up"
    assert "-secret" not in repr(settings)
    # Child processes get their settings in this way.
    assert load(environ=to_environment(settings)) == settings
    assert "-secret" not in repr(endpoints.read(tmp_path))


def test_a_process_of_up_gets_the_secrets_that_its_settings_name() -> None:
    """The gateway hashes user ids only if it has the key."""
    missing = [
        (process, secret)
        for secret in SECRETS
        for process in SECRETS_OF.keys() & {*setting_info(secret).processes}
        if secret not in SECRETS_OF[process]
    ]
    assert missing == []


@pytest.mark.parametrize(
    "variables",
    [
        {"STEPSTREAM_CLICKHOUSE_URL": "http://prod:8123"},
        {"STEPSTREAM_KAFKA_BROKERS": "prod:9092"},
        {"STEPSTREAM_ENDPOINT": "kafka://prod:9092"},
    ],
)
def test_passwords_of_up_go_to_no_other_server(tmp_path: Path, variables: dict[str, str]) -> None:
    """Settings for another Kafka or store get no password of the local ones."""
    running_here(tmp_path)
    settings = load(environ=environ(tmp_path, **variables))
    assert "-secret" not in json.dumps(to_environment(settings))


def test_what_is_set_comes_before_what_up_wrote(tmp_path: Path) -> None:
    """The writer's password as set, the reader's from ``up``.

    Another user gets no password at all.
    """
    running_here(tmp_path)
    own = load(environ=environ(tmp_path, STEPSTREAM_CLICKHOUSE_PASSWORD="mine"))
    assert login(own, readonly=False) == ("default", "mine")
    assert login(own, readonly=True) == ("reader", "r-secret")
    other = load(environ=environ(tmp_path, STEPSTREAM_CLICKHOUSE_USER="etl"))
    assert login(other, readonly=False) == ("etl", "")
    assert login(other, readonly=True) == ("etl", "")
    elsewhere = load(environ=environ(tmp_path, STEPSTREAM_NOTIFY_URL="http://prod:8124"))
    assert elsewhere.notify_token.get_secret_value() == ""


def test_a_login_in_the_url_is_user_and_password(tmp_path: Path) -> None:
    """From the environment, from a flag and in code; no URL that is shown holds a password."""
    # An @ in the password: split at the wrong one, half of it is the host's name.
    url = "http://etl:p%40ss@prod:8123"
    for settings in (
        load(environ=environ(tmp_path, STEPSTREAM_CLICKHOUSE_URL=url)),
        load(environ=environ(tmp_path), clickhouse_url=url),
        Settings(clickhouse_url=url),
    ):
        assert (settings.clickhouse_url, *login(settings, readonly=True)) == (
            "http://prod:8123",
            "etl",
            "p@ss",
        )
    kept = load(
        environ=environ(tmp_path, STEPSTREAM_CLICKHOUSE_URL=url, STEPSTREAM_CLICKHOUSE_USER="ada")
    )
    assert login(kept, readonly=False) == ("ada", "")
    given = load(
        environ=environ(tmp_path, STEPSTREAM_CLICKHOUSE_URL=url, STEPSTREAM_CLICKHOUSE_PASSWORD="x")
    )
    assert login(given, readonly=False) == ("etl", "x")


def test_the_url_for_other_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``stepstream store url``: the reader's, or the ``--writer``'s.

    An error with advice if unknown.
    """
    running_here(tmp_path)
    for name, value in environ(tmp_path).items():
        monkeypatch.setenv(name, value)
    assert run(["store", "url"]) == 0
    assert capsys.readouterr().out == "http://reader:r-secret@127.0.0.1:2222\n"
    assert run(["store", "url", "--writer"]) == 0
    assert capsys.readouterr().out == "http://default:w-secret@127.0.0.1:2222\n"
    assert run(["credentials", "token"]) == 0
    assert split_token(capsys.readouterr().out) == ("default", "w-secret")
    assert run(["settings"]) == 0
    assert "-secret" not in capsys.readouterr().out
    outside = Settings(clickhouse_url="http://u:p@prod:8123/")
    with pytest.raises(StoreError, match=r"clickhouse_reader_user.*--writer"):
        url_for_clients(outside)
    assert url_for_clients(outside, writer=True) == "http://u:p@prod:8123"
    odd = outside.model_copy(
        update={"clickhouse_reader_user": "r", "clickhouse_reader_password": SecretStr("a/b@c")}
    )
    assert urlsplit(url_for_clients(odd)).hostname == "prod"


def test_credentials_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added, listed, replaced, removed; the secret is printed once and kept nowhere."""
    for name, value in environ(
        tmp_path, STEPSTREAM_CREDENTIALS_FILE=str(tmp_path / "c.json")
    ).items():
        monkeypatch.setenv(name, value)
    assert (
        run(
            [
                "credentials",
                "add",
                "oncall",
                "--scope",
                "read",
                "--scope",
                "act",
                "--project",
                "shop",
            ]
        )
        == 0
    )
    pair = split_token(capsys.readouterr().out)
    assert pair is not None
    assert pair[0] == "oncall"
    assert pair[1] not in (tmp_path / "c.json").read_text()
    assert verified(tmp_path / "c.json", Login(*pair))
    assert run(["credentials", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("oncall", "act, read", "shop"))
    assert run(["credentials", "add", "oncall", "--scope", "write"]) == 2
    assert "'write'" in capsys.readouterr().err
    assert run(["credentials", "add", "oncall", "--scope", "read"]) == 0
    assert not verified(tmp_path / "c.json", Login(*pair))
    assert run(["credentials", "remove", "oncall"]) == 0
    assert run(["credentials", "remove", "oncall"]) == 1
    assert "there is no user oncall" in capsys.readouterr().err
    assert run(["credentials", "token"]) == 1
    assert "STEPSTREAM_NOTIFY_TOKEN" in capsys.readouterr().err
