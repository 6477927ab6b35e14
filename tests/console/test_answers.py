"""Wrong and foreign requests get a clear answer, and the page is never blank."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepstream.console import address
from stepstream.console.signing import LINK, signed
from tests.console.known_runs import KnownRuns
from tests.console.world import Visit, World, asked
from tests.support.console import running

CSRF = {"Content-Type": "application/json", "X-Stepstream-CSRF": "1"}


def test_a_wrong_id_is_answered_with_the_nearest(
    visit: Visit, world: World, runs: KnownRuns
) -> None:
    visit.expected = ("404",)
    wrong = runs.failed[:31] + ("0" if runs.failed[31] != "0" else "1")
    visit.open(f"/runs/{wrong}")
    visit.text("There is no such run")
    visit.page.get_by_role("link", name=runs.failed[:12]).click()
    visit.page.wait_for_url(f"**/runs/{runs.failed}*")
    visit.rows().first.wait_for()
    status, body = asked(world, visit, "GET", f"/api/v1/runs/{wrong}")
    assert (status, body["code"]) == (404, "not_found")
    assert runs.failed in body["nearest"]
    visit.open("/alerts/00000000-0000-4000-8000-000000000000")
    visit.text("There is no such alert")
    for path in ("/nothing/here", "/cost/x"):
        visit.open(path)
        visit.page.locator("main h1").first.wait_for()


def test_a_beginning_of_an_id_opens_the_run(visit: Visit, runs: KnownRuns) -> None:
    visit.expected = ("404",)  # the answer that names the nearest
    visit.open(f"/runs/{runs.failed[:10]}")
    visit.page.wait_for_url(f"**/runs/{runs.failed}*")
    visit.rows().first.wait_for()


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ({"Host": "evil.example"}, 403, "Host"),
        ({"Origin": "https://evil.example", **CSRF}, 403, "Origin"),
        ({"Content-Type": "application/json"}, 403, "CSRF"),
        ({**CSRF, "Content-Type": "text/plain"}, 415, "application/json"),
    ],
    ids=["host", "origin", "csrf", "type"],
)
def test_foreign_requests_are_refused(
    visit: Visit, world: World, runs: KnownRuns, headers: dict[str, str], status: int, word: str
) -> None:
    visit.open("/system")
    visit.text("This console")
    path = f"/api/v1/runs/{runs.failed}/stop"
    got, body = asked(world, visit, "POST", path, headers=headers, data="{}")
    assert got == status
    assert word.lower() in json.dumps(body).lower()


def test_a_body_over_the_limit(visit: Visit, world: World, runs: KnownRuns) -> None:
    visit.open("/system")
    visit.text("This console")
    large = json.dumps({"reason": "x" * 100_000})
    path = f"/api/v1/runs/{runs.failed}/stop"
    status, body = asked(world, visit, "POST", path, headers=CSRF, data=large)
    assert (status, body["code"]) == (413, "too_large")


def test_a_session_that_ended_leads_to_the_login(
    visits: Callable[..., Visit], runs: KnownRuns
) -> None:
    visit = visits()
    visit.expected = ("401",)
    visit.open("/runs")
    visit.text("support / refund")
    visit.context.clear_cookies()
    visit.open("/alerts")
    visit.page.wait_for_url("**/login*")
    visit.text("stepstream open")


def test_a_link_that_has_expired_or_was_used(visits: Callable[..., Visit], world: World) -> None:
    """The page states why, and how to get a new one."""
    found = address.read(Path(world.settings.state_dir))
    assert found is not None
    fields = {"user": "ann", "start": found.start, "nonce": "once"}
    expired = signed(found.secret, LINK, fields, 1.0)
    visit = visits()
    visit.expected = ("401", "403")
    visit.page.goto(f"{world.url}/login?token={expired}&next=/")
    visit.text("expired")
    visit.text("stepstream open")
    link = world.link("/system")
    used = visits()
    used.page.goto(link)
    used.text("This console")
    again = visits()
    again.expected = ("401", "403")
    again.page.goto(link)
    again.text("stepstream open")


def test_a_query_over_its_time_limit_is_named(
    visits: Callable[..., Visit], world: World, runs: KnownRuns, tmp_path: Path
) -> None:
    """A console whose limit no query meets: the page states which one it was."""
    settings: dict[str, Any] = world.settings.model_dump(
        include={"kafka_brokers", "topic_prefix", "clickhouse_database", "clickhouse_url"}
    )
    settings |= {
        "clickhouse_user": world.settings.clickhouse_user,
        "clickhouse_password": world.settings.clickhouse_password.get_secret_value(),
        "console_query_timeout": "1us",
    }
    with running(tmp_path, **settings) as client:
        visit = visits()
        visit.expected = ("504", "503")
        found = address.link(client.console.address, f"/runs/{runs.failed}")
        visit.world = _Elsewhere(client.console.server.url)  # type: ignore[assignment]
        visit.page.goto(found)
        visit.text("took too long")
        visit.text("query_timeout")


class _Elsewhere:
    def __init__(self, url: str) -> None:
        self.url = url
