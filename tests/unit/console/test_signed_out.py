"""A session that was signed out is over, for every copy of its cookie."""

from __future__ import annotations

from pathlib import Path

from stepstream.console.signed_out import FILE_NAME, MAX_KEPT, SignedOut
from tests.support.console import Client, running


def test_a_copied_cookie_is_refused_after_signing_out(tmp_path: Path) -> None:
    """Also by the console that starts after this one; other sessions go on."""
    with running(tmp_path) as one:
        copy, other = Client(one.console, one.cookie), Client(one.console)
        other.sign_in()
        assert copy.get("/api/v1/session").json["by_session"]

        assert one.post("/api/v1/logout", {}).status == 200

        got = copy.get("/api/v1/session")
        assert (got.status, got.json["error"]) == (
            401,
            "this session was signed out: sign in again",
        )
        assert other.get("/api/v1/session").status == 200
    with running(tmp_path) as after:
        assert Client(after.console, copy.cookie).get("/api/v1/session").status == 401
        assert Client(after.console, other.cookie).get("/api/v1/session").status == 200


def test_signing_out_without_a_session_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path, console_proxy_header="X-User") as one:
        proxy = Client(one.console)
        assert proxy.post("/api/v1/logout", {}, X_User="ada").status == 200
        assert not (tmp_path / FILE_NAME).exists()


def test_sessions_are_forgotten_when_they_have_expired(tmp_path: Path) -> None:
    kept = SignedOut(tmp_path)
    kept.add("old", 100.0, now_s=1.0)
    kept.add("new", 900.0, now_s=1.0)
    kept.add("newer", 950.0, now_s=500.0)

    again = SignedOut(tmp_path)
    assert ["old" in again, "new" in again, "newer" in again] == [False, True, True]


def test_their_number_is_bounded() -> None:
    kept = SignedOut(None)
    kept._until_s.update((str(number), 1_000.0 + number) for number in range(MAX_KEPT))
    kept.add("one more", 99_999.0, now_s=0.0)
    assert len(kept._until_s) == MAX_KEPT
    assert "0" not in kept
    assert "one more" in kept


def test_a_damaged_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("[1, 2")
    assert "x" not in SignedOut(tmp_path)
