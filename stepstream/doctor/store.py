"""Checks of ClickHouse: connection, version, schema, clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Final

from stepstream.common.settings import SettingsError, require_clickhouse
from stepstream.doctor.check import Check, fail, ok, warn
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import StoreError, status
from stepstream.sinks.clickhouse.client import connect_server

OLDEST: Final = (25, 8)
"""The oldest supported server; the tests run against a newer one."""
CLOCK_WARN_S: Final = 2.0


def checks(settings: Settings) -> Iterator[Check]:
    """All checks of ClickHouse; only the first if it cannot be reached."""
    try:
        require_clickhouse(settings)
    except SettingsError as error:
        yield fail("clickhouse", str(error), "start `stepstream up`, or set clickhouse_url")
        return
    try:
        client = connect_server(settings, timeout_s=10)
    except StoreError as error:
        yield fail(
            "clickhouse", str(error), "start it, or correct clickhouse_url, user and password"
        )
        return
    try:
        yield _version(str(client.server_version), settings)
        asked = time.time()
        there = float(str(client.command("SELECT toUnixTimestamp64Milli(now64(3))"))) / 1000
        yield from _clock(there, asked, time.time())
        yield from _schema(settings)
    finally:
        client.close()


def _version(version: str, settings: Settings) -> Check:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    text = f"{version} at {settings.clickhouse_url}, database {settings.clickhouse_database}"
    if numbers < OLDEST:
        return warn("clickhouse", text, f"update ClickHouse to {OLDEST[0]}.{OLDEST[1]} or newer")
    return ok("clickhouse", text)


def _clock(there: float, asked: float, answered: float) -> Iterator[Check]:
    """Compare the server's clock with this machine's, within the time of the query."""
    # The server read its clock between both times, so only what lies outside is a difference.
    off = there - answered if there > answered else there - asked if there < asked else 0.0
    if abs(off) > CLOCK_WARN_S:
        side = "ahead of" if off > 0 else "behind"
        yield warn(
            "clock",
            f"ClickHouse's clock is {abs(off):.0f} s {side} this machine's",
            "synchronise clocks (NTP)",
        )


def _schema(settings: Settings) -> Iterator[Check]:
    found = status(settings)
    todo = "stepstream store migrate"
    if not found.exists:
        yield fail("schema", f"there is no database {found.database}", todo)
    elif found.newer:
        yield fail(
            "schema", f"written by a newer version ({', '.join(found.newer)})", "update stepstream"
        )
    elif found.lacks:
        yield fail(
            "schema", f"version {found.version}, but {_some(list(map(str, found.lacks)))}", todo
        )
    elif found.pending or found.outdated_views:
        views = [f"view {name} is missing or outdated" for name in found.outdated_views]
        yield fail("schema", f"pending: {_some([*found.pending, *views])}", todo)
    elif found.wrong:
        yield fail(
            "schema",
            f"version {found.version}, but {_some(list(found.wrong))}",
            "see `stepstream store status`",
        )
    elif found.differences:
        yield warn(
            "schema", f"version {found.version}; {'; '.join(map(str, found.differences))}", todo
        )
    else:
        yield ok("schema", f"version {found.version}, up to date")


def _some(texts: list[str], most: int = 4) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
