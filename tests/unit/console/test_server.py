"""Signing in, and what the server refuses, with nothing behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepstream.common.person import who
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.console import address
from stepstream.console.pages import safe_next
from stepstream.console.reads import MAX_EXPORT_BYTES
from tests.support.console import Client, running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("console")
    reader, secret = new_credential("reader", ["read"])
    limited, limited_secret = new_credential("limited", ["read", "act"], ["shop"])
    save(folder / "keys.json", Credentials([reader, limited]))
    with running(
        folder,
        credentials_file=str(folder / "keys.json"),
        console_proxy_header="X-Forwarded-User",
        console_hosts="console.example.com",
    ) as client:
        client.keys = {  # type: ignore[attr-defined]
            "reader": token_of("reader", secret),
            "limited": token_of("limited", limited_secret),
        }
        yield client


@pytest.fixture
def stranger(client: Client) -> Client:
    """A client that is not signed in."""
    return Client(client.console)


def key(client: Client, name: str) -> str:
    return str(client.keys[name])  # type: ignore[attr-defined]


def test_a_link_signs_in_once(client: Client, stranger: Client) -> None:
    link = address.link(client.console.address, "/runs/abc").removeprefix(client.console.server.url)

    first, second = stranger.get(link), stranger.get(link)

    assert (first.status, first.headers["location"]) == (303, "/runs/abc")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Strict" in first.headers["set-cookie"]
    assert second.status == 401
    assert b"used already" in second.body


def test_a_link_of_an_earlier_start_is_refused(client: Client, stranger: Client) -> None:
    known = client.console.address
    old = address.Address(known.url, known.secret, "an earlier start")

    got = stranger.get(address.link(old).removeprefix(client.console.server.url))

    assert got.status == 401
    assert b"older than the console" in got.body


def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as before:
        cookie = before.cookie
    with running(tmp_path) as after:
        assert Client(after.console, cookie).get("/api/v1/session").status == 200


def test_nothing_but_pages_is_shown_to_strangers(stranger: Client) -> None:
    got = stranger.get("/api/v1/session")

    assert (got.status, got.json["code"]) == (401, "unauthorized")
    assert stranger.get("/api/v1/live?run=" + "a" * 32).status == 401
    assert stranger.get("/runs/abc").status in (200, 503)
    assert stranger.get("/login").status == 200


def test_the_session_names_the_user_and_the_rights(client: Client, stranger: Client) -> None:
    operator = client.get("/api/v1/session").json
    reader = stranger.get("/api/v1/session", x_api_key=key(client, "reader")).json

    assert operator["user"] == who()
    assert operator["may_act"]
    assert (reader["user"], reader["may_act"]) == ("reader", False)
    assert "act" in reader["read_only_reason"]


def test_a_key_signs_in_by_the_form_and_ends_with_the_key(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    entry, secret = new_credential("ada", ["read"])
    save(file, Credentials([entry]))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with running(tmp_path, credentials_file=str(file)) as own:
        body = f"key={token_of('ada', secret)}&next=/cost".encode()
        got = Client(own.console).send("POST", "/login", body, form)
        assert (got.status, got.headers["location"]) == (303, "/cost")
        ada = Client(own.console, got.headers["set-cookie"].partition(";")[0])
        assert ada.get("/api/v1/session").json["user"] == "ada"

        own.console.login._keys.table = Credentials()
        assert ada.get("/api/v1/session").status == 401
        wrong = Client(own.console).send("POST", "/login", b"key=stepstream_ada.x", form)
        assert wrong.status == 401


def test_cookies_of_other_servers_of_the_machine_are_ignored(client: Client) -> None:
    others = f'theme={{"dark": true}}; a b=c; {client.cookie}; =; x="'

    assert Client(client.console, others).get("/api/v1/session").status == 200


def test_foreign_origins_and_hosts_are_refused(client: Client) -> None:
    assert client.get("/api/v1/session", Origin="https://evil.example").status == 403
    assert client.get("/api/v1/session", Host="evil.example").status == 403
    assert client.get("/api/v1/session", Host="console.example.com").status == 200
    assert client.get("/api/v1/session", Sec_Fetch_Site="cross-site").status == 403


def test_other_sites_may_link_to_pages_and_load_nothing(client: Client) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}

    assert client.get("/runs/abc", **link, Sec_Fetch_Dest="document").status in (200, 503)
    assert client.get("/runs/abc", **link, Sec_Fetch_Dest="iframe").status == 403
    assert client.get("/api/v1/session", **link, Sec_Fetch_Dest="document").status == 403
    assert client.send(
        "POST", "/login", b"", {**link, "Sec_Fetch_Dest": "document"}
    ).status == 403  # fmt: skip


@pytest.mark.parametrize("path", ["/api/v1/runs/" + "a" * 32 + "/stop", "/api/v1/logout"])
def test_a_post_without_the_header_of_the_page_is_refused(client: Client, path: str) -> None:
    got = client.send("POST", path, b"{}", {"Content-Type": "application/json"})

    assert got.status == 403
    assert "x-stepstream-csrf" in got.json["error"]


def test_a_reader_may_not_act(client: Client, stranger: Client) -> None:
    run = "a" * 32

    got = stranger.post(f"/api/v1/runs/{run}/stop", {}, x_api_key=key(client, "reader"))

    assert (got.status, got.json["code"]) == (403, "forbidden")


def test_a_read_only_console_refuses_actions(tmp_path: Path) -> None:
    with running(tmp_path, console_read_only=True) as own:
        got = own.post(f"/api/v1/runs/{'a' * 32}/stop", {})
        assert (got.status, got.json["code"]) == (403, "read_only")
        assert own.get("/api/v1/session").json["read_only"]


def test_a_large_body_and_a_body_that_is_no_json_are_refused(client: Client) -> None:
    path = f"/api/v1/runs/{'a' * 32}/stop"

    assert client.post(path, {"reason": "x" * 70_000}).status == 413
    wrong = {"X-Stepstream-CSRF": "1", "Content-Type": "application/json"}
    assert client.send("POST", path, b"{", wrong).status == 400
    assert client.send("POST", path, b"[]", wrong).status == 400
    assert client.send("POST", path, rb'{"reason": "\ud800"}', wrong).status == 400
    assert client.send("POST", path, b"{}", {**wrong, "Content-Type": "text/plain"}).status == 415


def test_the_header_of_a_trusted_proxy_names_the_user(client: Client, stranger: Client) -> None:
    got = stranger.get("/api/v1/session", X_Forwarded_User="ada@example.com").json

    assert (got["user"], got["may_act"]) == ("ada@example.com", False)


def test_that_header_of_others_is_ignored(tmp_path: Path) -> None:
    given: Any = {"console_proxy_header": "X-User", "console_proxy_addresses": "10.0.0.0/8"}
    with running(tmp_path, **given) as own:
        assert Client(own.console).get("/api/v1/session", X_User="ada").status == 401


def test_a_store_that_is_away_is_named(client: Client) -> None:
    got = client.get("/api/v1/runs")

    assert (got.status, got.json["code"]) == (503, "store_unavailable")
    assert "127.0.0.1:2" in got.json["error"]
    assert got.headers["retry-after"]


def test_a_limited_key_has_to_stay_in_its_projects(client: Client, stranger: Client) -> None:
    got = stranger.get("/api/v1/runs?project=other", x_api_key=key(client, "limited"))

    assert got.status == 403
    assert "shop" in got.json["error"]


def test_a_usage_export_that_cannot_be_compared_is_refused(
    client: Client, stranger: Client
) -> None:
    path = "/api/v1/ask/cost-check"
    wrong = {"X-Stepstream-CSRF": "1", "Content-Type": "application/json"}
    assert stranger.post(path, {"csv": ""}).status == 401
    assert client.send("POST", path, b"{}", {"Content-Type": "application/json"}).status == 403
    assert client.send("POST", path, b"{}", {**wrong, "Content-Type": "text/plain"}).status == 415
    assert client.post(path, {}).status == 400
    assert client.post(path, {"csv": ["date,model,cost"]}).status == 400
    assert client.post(path, {"csv": "", "provider": 7}).status == 400
    assert client.post(path, {"csv": "x" * (MAX_EXPORT_BYTES + 1)}).status == 413
    got = stranger.post(path, {"csv": ""}, x_api_key=key(client, "limited"))
    assert (got.status, "all projects" in got.json["error"]) == (403, True)
    assert client.post(path, {"csv": "date,model,cost"}).json["code"] == "store_unavailable"


def test_paths_that_are_none(client: Client) -> None:
    assert client.get("/api/v1/nothing").status == 404
    assert client.get("/api/v1/ask/nothing").status == 404
    assert client.get("/assets/../../pyproject.toml").status == 404
    assert client.get("/nothing.js").status == 404
    assert client.get("/%00.js").status == 404
    assert client.get(f"/{'a' * 5_000}.js").status == 404
    assert client.get("/%00").status in (200, 503)
    assert client.get("/api/v1/live?run=abc").status == 400


def test_the_policy_of_pages_and_of_data(client: Client) -> None:
    page, data = client.get("/"), client.get("/api/v1/session")

    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert data.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\nb"]
)
def test_signing_in_leads_to_no_other_site(path: str) -> None:
    assert safe_next(path) == "/"


def test_signing_in_leads_to_the_page_that_was_wanted() -> None:
    assert safe_next("/runs/abc?axis=real&step=1") == "/runs/abc?axis=real&step=1"


def test_without_the_built_pages_a_page_has_the_command_that_builds_them(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from stepstream.console.pages import Pages

    with running(tmp_path) as own:
        app = Starlette(routes=Pages(own.console.login, tmp_path / "none").routes())
        got = TestClient(app).get("/runs/abc")
    assert got.status_code == 503
    assert "make setup" in got.text


def test_scripts_are_compressed_for_browsers_that_accept_it(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from stepstream.console.pages import Pages

    (tmp_path / "pages/assets").mkdir(parents=True)
    script = tmp_path / "pages/assets/index.js"
    script.write_text("const steps = 0;\n" * 1_000)
    (tmp_path / "pages/picture.png").write_bytes(b"PNG" * 1_000)
    with running(tmp_path) as own:
        app = Starlette(routes=Pages(own.console.login, tmp_path / "pages").routes())
        browser = TestClient(app)
        coded = browser.get("/assets/index.js", headers={"Accept-Encoding": "br, gzip"})
        plain = browser.get("/assets/index.js", headers={"Accept-Encoding": "gzip;q=0, br"})
        picture = browser.get("/picture.png", headers={"Accept-Encoding": "gzip"})
        script.write_text("changed")
        changed = browser.get("/assets/index.js", headers={"Accept-Encoding": "gzip"})
    assert coded.headers["content-encoding"] == "gzip"
    assert coded.headers["vary"] == "Accept-Encoding"
    assert int(coded.headers["content-length"]) < 500
    assert coded.text == plain.text
    assert "content-encoding" not in {*plain.headers, *picture.headers}
    assert changed.text == "changed"


def test_a_stream_ends_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    entry, secret = new_credential("ada", ["read"])
    save(file, Credentials([entry]))
    with running(tmp_path, credentials_file=str(file)) as own:
        connection = own.connection()
        headers = {"x-api-key": token_of("ada", secret)}
        connection.request("GET", "/api/v1/live?runs=1", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"event: hello" in answer.read1(65_536)

        save(file, Credentials())

        # To its end, which the client's timeout makes an error where there is none.
        assert b"event: state" in answer.read()
        connection.close()


def test_the_stream_reports_what_is_away(client: Client) -> None:
    connection = client.connection()
    connection.request("GET", "/api/v1/live?runs=1", headers={"Cookie": client.cookie})
    answer = connection.getresponse()
    text = b""
    while b"event: state" not in text:
        text += answer.read1(65_536)
    assert b"event: hello" in text
    assert b'"kafka":{"ok":false' in text
    connection.close()
