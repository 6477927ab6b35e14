"""The credential table: right secrets are taken, wrong ones are not, and failing is limited without
locking others out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from stepstream.common.web import credentials
from stepstream.common.web.credentials import (
    Credential,
    Credentials,
    CredentialsError,
    TooManyTries,
    hash_password,
    load,
    new_credential,
    save,
    split_token,
    token_of,
)

HERE = "127.0.0.1"


def counting_scrypt(patch: pytest.MonkeyPatch) -> list[str]:
    """The passwords whose hash is computed from now on."""
    computed: list[str] = []
    real = credentials._scrypt

    def scrypt(password: str, salt: str, n: int, r: int, p: int) -> str:
        computed.append(password)
        return real(password, salt, n, r, p)

    patch.setattr(credentials, "_scrypt", scrypt)
    return computed


def test_a_random_secret_is_known_again_and_no_other() -> None:
    entry, secret = new_credential("reader", ["read"])
    table = Credentials([entry])
    assert len(secret) == 64
    assert secret not in entry.hash
    assert table.verify("reader", secret, client=HERE, now_s=0) is entry
    for name, wrong in [
        ("reader", ""),
        ("reader", secret[:-1]),
        ("reader", secret + "0"),
        ("unknown", secret),
        ("", secret),
    ]:
        assert table.verify(name, wrong, client=HERE, now_s=0) is None
    assert table.verify("reader", "é" * 2000, client=HERE, now_s=0) is None


def test_scopes_and_projects_are_those_of_the_entry() -> None:
    entry, _ = new_credential("shop", ["read", "ingest"], ["shop", "shop-eu"])
    assert entry.allows("read", "shop")
    assert entry.allows("ingest", "shop-eu")
    assert not entry.allows("read", "bank")
    assert not entry.allows("read")  # all projects at once
    assert not entry.allows("act", "shop")
    everywhere, _ = new_credential("all", ["admin"])
    assert everywhere.allows("admin")
    assert everywhere.allows("admin", "any")
    assert not everywhere.allows("read")


def test_a_password_is_hashed_slowly_once_and_then_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Credential("default", hash_password("hunter2"), frozenset({"admin"}))
    assert entry.hash != hash_password("hunter2")  # salted
    table = Credentials([entry])
    computed = counting_scrypt(monkeypatch)
    assert table.is_slow("default", "hunter2")
    for _ in range(3):
        assert table.verify("default", "hunter2", client=HERE, now_s=0) is entry
    assert not table.is_slow("default", "hunter2")
    assert table.verify("default", "hunter3", client=HERE, now_s=0) is None
    assert computed == ["hunter2", "hunter3"]


def test_only_an_address_that_keeps_failing_is_slowed_down() -> None:
    slow = Credential("default", hash_password("hunter2"), frozenset({"admin"}))
    fast, secret = new_credential("reader", ["read"])
    table = Credentials([slow, fast])
    for _ in range(credentials.FREE_TRIES):
        assert table.verify("reader", "guess", client="10.0.0.9", now_s=5) is None
    with pytest.raises(TooManyTries) as raised:
        table.verify("reader", "guess", client="10.0.0.9", now_s=5)
    assert 0 < raised.value.retry_after_s <= 1 / credentials.TRIES_PER_SECOND
    with pytest.raises(TooManyTries):
        table.verify("unknown", "guess", client="10.0.0.9", now_s=5)
    # What is right is taken always.
    assert table.verify("reader", secret, client="10.0.0.9", now_s=5) is fast
    with pytest.raises(TooManyTries):
        # No slow hash is computed for this address.
        table.verify("default", "hunter2", client="10.0.0.9", now_s=5)
    assert table.verify("default", "hunter2", client="10.0.0.8", now_s=5) is slow
    # Remembered by now.
    assert table.verify("default", "hunter2", client="10.0.0.9", now_s=5) is slow
    assert table.verify("reader", "guess", client="10.0.0.9", now_s=6.5) is None  # one try a second
    with pytest.raises(TooManyTries):
        table.verify("reader", "guess", client="10.0.0.9", now_s=6.5)


def test_a_limited_address_computes_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Credentials([Credential("default", hash_password("hunter2"), frozenset({"admin"}))])
    computed = counting_scrypt(monkeypatch)
    for _ in range(100):
        with contextlib.suppress(TooManyTries):
            table.verify("default", "guess", client=HERE, now_s=1)
    assert len(computed) == credentials.FREE_TRIES


def test_one_ipv6_network_is_one_client_and_clients_are_bounded() -> None:
    table = Credentials()
    for number in range(credentials.FREE_TRIES):
        table.verify("x", "y", client=f"2001:db8::{number:x}", now_s=0)
    with pytest.raises(TooManyTries):
        table.verify("x", "y", client="2001:db8::ffff:1", now_s=0)
    for number in range(credentials.MAX_CLIENTS + 50):
        table.verify("x", "y", client=f"host-{number}", now_s=0)
    assert len(table._failures._by_network) == credentials.MAX_CLIENTS


def test_tokens_carry_name_and_secret() -> None:
    assert split_token(token_of("shop-key", "abc.def")) == ("shop-key", "abc.def")
    assert split_token(f"  {token_of('a', 'b')}\n") == ("a", "b")
    for wrong in [
        "",
        "stepstream_",
        "stepstream_a",
        "stepstream_a.",
        "stepstream_.b",
        "a.b",
        "stepstream_A B.c",
        "Bearer x",
    ]:
        assert split_token(wrong) is None


def test_a_table_is_written_for_its_owner_alone_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "credentials.json"
    one, secret = new_credential("reader", ["read"], ["b", "a"])
    save(file, Credentials([one]))
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret not in file.read_text()
    two = Credential("default", hash_password("pw"), frozenset({"admin", "act"}))
    save(file, load(file).with_entry(two))
    assert list(load(file)) == [one, two]
    assert load(file).verify("reader", secret, client=HERE, now_s=0) == one
    assert [entry.name for entry in load(file).without("reader")] == ["default"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def file_of(entry: str) -> str:
    """The text of a credential file with this entry."""
    return f'{{"version": 1, "credentials": [{entry}]}}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ("{}", "version"),
        ('{"version": 2, "credentials": []}', "reads version 1"),
        ('{"version": 1, "credentials": [{"name": "a"}]}', "hash"),
        (
            file_of('{"name": "A B", "hash": "sha256:00", "scopes": [], "projects": []}'),
            "'A B'",
        ),
        (
            file_of('{"name": "a", "hash": "plain", "scopes": [], "projects": []}'),
            "sha256:HEX",
        ),
        (
            file_of(
                '{"name": "a", "hash": "scrypt:9:8:1:SALT:DIGEST", "scopes": [], "projects": []}'
            ),
            "sha256:HEX",
        ),
        (
            file_of('{"name": 5, "hash": "plain", "scopes": [], "projects": []}'),
            "texts",
        ),
        (
            file_of('{"name": "a", "hash": "x", "scopes": "read", "projects": []}'),
            "lists of texts",
        ),
    ],
)
def test_a_file_that_is_no_table_is_named_with_the_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(text.replace("SALT", "0" * 32).replace("DIGEST", "0" * 64))
    with pytest.raises(CredentialsError, match=f"{file}.*{reason}"):
        load(file)


def test_what_is_missing_twice_or_of_no_scope_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"none\.json cannot be read: No such file"):
        load(tmp_path / "none.json")
    entry, _ = new_credential("a", ["read"])
    with pytest.raises(CredentialsError, match="twice"):
        Credentials([entry, entry])
    with pytest.raises(CredentialsError, match=r"'write'.*read, act, admin, ingest"):
        new_credential("a", ["write"])  # type: ignore[list-item]
    with pytest.raises(CredentialsError, match="1 to 1024"):
        hash_password("")
    stored = {"name": "a", "hash": entry.hash, "scopes": ["read"], "projects": []}
    (tmp_path / "twice.json").write_text(
        json.dumps({"version": 1, "credentials": [stored, stored]})
    )
    with pytest.raises(CredentialsError, match="twice"):
        load(tmp_path / "twice.json")
