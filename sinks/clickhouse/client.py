"""Connecting to ClickHouse over HTTP: the same code for a server and for the embedded engine."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from stepstream.common.login import Login
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.errors import (
    DENIED_CODES,
    UNKNOWN_DATABASE,
    StoreDenied,
    StoreError,
    StoreMissing,
    StoreUnreachable,
    error_code,
    first_line,
)

CONNECT_TIMEOUT_S: Final = 5
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def connect(settings: Settings, *, readonly: bool = False, timeout_s: int = 300) -> Client:
    """A client of the store's database, which must exist. Several threads may use it.

    With ``readonly`` it connects as the reading user, where one is configured, and the server
    refuses writes, changes of settings, and functions that access files or other hosts. Raises
    ``StoreUnreachable``, ``StoreDenied`` or ``StoreMissing``.
    """
    return _connect(settings, settings.clickhouse_database, readonly, timeout_s)


def connect_server(settings: Settings, *, timeout_s: int = 300) -> Client:
    """A client of the server; the store's database need not exist."""
    return _connect(settings, None, False, timeout_s)


def _connect(settings: Settings, database: str | None, readonly: bool, timeout_s: int) -> Client:
    if not settings.clickhouse_url:
        raise StoreUnreachable(
            "clickhouse_url is not set: set it to http://host:8123, or start `stepstream up`"
        )
    parts = urlsplit(settings.clickhouse_url)
    secure = parts.scheme == "https"
    if "@" in settings.clickhouse_url:
        raise StoreError(
            "the login in clickhouse_url cannot be read: write / and @ of a password as %2F and %40"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(
            f"clickhouse_url must be http(s)://host:port, and {settings.clickhouse_url!r} is not"
        )
    user, password = login(settings, readonly=readonly)
    try:
        return clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or (8443 if secure else 8123),
            username=user,
            password=password,
            database=database,
            ca_cert=settings.clickhouse_ca_file or None,
            settings={"readonly": 1} if readonly else {},
            # On loopback compressing costs more CPU than copying the bytes.
            compress=parts.hostname not in _LOOPBACK,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=timeout_s,
            # The server runs the queries of a session one after the other.
            autogenerate_session_id=False,
            dedicated_pool=True,
        )
    except ClickHouseError as error:
        raise explained(error, settings, user) from error


def login(settings: Settings, *, readonly: bool) -> tuple[str, str]:
    """User and password; with ``readonly`` those of the reading user where one is configured."""
    if readonly and settings.clickhouse_reader_user:
        return (
            settings.clickhouse_reader_user,
            settings.clickhouse_reader_password.get_secret_value(),
        )
    return settings.clickhouse_user, settings.clickhouse_password.get_secret_value()


def url_for_clients(settings: Settings, *, writer: bool = False) -> str:
    """The store's URL with a login in it, for other clients: of the user that reads, or that
    writes.

    Raises ``StoreError`` where no reading user is configured.
    """
    if not writer and not settings.clickhouse_reader_user:
        raise StoreError(
            "no reading user is configured: set clickhouse_reader_user and "
            "clickhouse_reader_password, "
            "or give --writer for the user that writes"
        )
    return Login(*login(settings, readonly=not writer)).url(settings.clickhouse_url.rstrip("/"))


def explained(error: ClickHouseError, settings: Settings, user: str = "") -> StoreError:
    """The store error for ClickHouse's error; ``user`` is the refused one, by default the
    writer.
    """
    code, where = error_code(error), settings.clickhouse_url
    if code in DENIED_CODES:
        who = (
            "clickhouse_reader"
            if user and user == settings.clickhouse_reader_user
            else "clickhouse"
        )
        return StoreDenied(
            f"ClickHouse at {where} refused user {user or settings.clickhouse_user!r}: check "
            f"{who}_user and "
            f"{who}_password ({first_line(error)})"
        )
    if code == UNKNOWN_DATABASE:
        return StoreMissing(
            f"ClickHouse at {where} has no database {settings.clickhouse_database!r}: run "
            "`stepstream store migrate`"
        )
    if code:
        return StoreError(f"ClickHouse at {where}: {first_line(error)}")
    return StoreUnreachable(
        f"no ClickHouse answers at {where}: is it running? ({first_line(error)})"
    )
