"""Brings a store's schema up to date, also from several processes at once and after a kill
anywhere.

There is no lock. Every statement is harmless when repeated; a migration is recorded in
``schema_migrations`` after its last statement, and a process that does not find the record runs all
of it. What the applied migrations make is compared with the store, so that what was dropped since
is made again. Views, comments, retention and text search are compared too and need no record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import descriptions
from stepstream.sinks.clickhouse.client import connect_server, explained
from stepstream.sinks.clickhouse.errors import StoreMissing, StoreNewer, error_code
from stepstream.sinks.clickhouse.expected import Column, Findings, Lack, compare
from stepstream.sinks.clickhouse.public_views import View, fingerprint_of, views
from stepstream.sinks.clickhouse.schema import Migration, migrations, template_values
from stepstream.sinks.clickhouse.tunables import Difference, differences, require_sensible

logger = logging.getLogger(__name__)

_RACES: Final = frozenset({57, 60, 81, 82, 122, 219, 341, 473, 517, 999})
"""Errors that another process may cause that changes the same object at the same moment: retried.
"""
_TRIES: Final = 8

Hook = Callable[[str], None]


@dataclass(frozen=True)
class SchemaStatus:
    """How a store's schema differs from this program's."""

    database: str
    exists: bool
    applied: dict[int, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)
    outdated_views: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    """Retention and text search where they differ from the settings."""
    lacks: tuple[Lack, ...] = ()
    """What the applied migrations made and the store does not have any more."""
    wrong: tuple[str, ...] = ()
    """What differs from what the migrations made; ``migrate`` does not change it."""

    @property
    def version(self) -> int:
        """The newest migration applied; 0 for none."""
        return max(self.applied, default=0)

    @property
    def current(self) -> bool:
        """Whether nothing is left to do."""
        return self.exists and not (
            self.pending
            or self.newer
            or self.outdated_views
            or self.differences
            or self.lacks
            or self.wrong
        )


@dataclass(frozen=True)
class MigrationReport:
    """What ``migrate`` did."""

    database: str
    version: int
    applied: list[str]
    views: list[str]
    changes: list[str]
    """Retention and text search, as they are now."""
    repaired: list[str] = field(default_factory=list)
    """What was missing and was made again."""
    notes: list[str] = field(default_factory=list)
    """What the repair could not bring back, and what does."""
    wrong: list[str] = field(default_factory=list)
    """What differs and was not changed."""

    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return bool(self.applied or self.views or self.changes or self.repaired)


def migrate(settings: Settings, *, before_statement: Hook = lambda _sql: None) -> MigrationReport:
    """Bring the schema up to date and make again what is missing; does nothing to a current one.

    ``before_statement`` is called with each statement. Raises a ``StoreError``, ``StoreNewer``
    where a newer program has migrated the store.
    """
    require_sensible(settings)
    client = connect_server(settings)
    try:
        return _Migrator(client, settings, before_statement).run()
    except ClickHouseError as error:
        raise explained(error, settings) from error
    finally:
        client.close()


def status(settings: Settings) -> SchemaStatus:
    """Compare the store's schema with this program's and change nothing.

    Raises a ``StoreError``.
    """
    client = connect_server(settings)
    try:
        return read_status(client, settings)
    except ClickHouseError as error:
        raise explained(error, settings) from error
    finally:
        client.close()


def require_current(settings: Settings) -> None:
    """Raise ``StoreMissing`` or ``StoreNewer`` where the store's tables are not those of this
    program.
    """
    found = status(settings)
    if not found.exists or found.pending or found.lacks:
        lacking = ", ".join([*found.pending, *map(str, found.lacks)]) or "no database"
        raise StoreMissing(
            f"the schema of database {settings.clickhouse_database!r} at "
            f"{settings.clickhouse_url} is not up to date "
            f"({lacking}): run `stepstream store migrate`"
        )
    _refuse_newer(found, settings)


def _refuse_newer(found: SchemaStatus, settings: Settings) -> None:
    if found.newer:
        raise StoreNewer(
            f"database {settings.clickhouse_database!r} at {settings.clickhouse_url} has "
            "migrations that this program does "
            f"not know ({', '.join(found.newer)}): install the newer version of stepstream"
        )


def read_status(client: Client, settings: Settings) -> SchemaStatus:
    """As ``status``, over a connection to the server."""
    database = settings.clickhouse_database
    if not _rows(client, "SELECT 1 FROM system.databases WHERE name = {db:String}", db=database):
        return SchemaStatus(database, False, pending=[_label(m) for m in migrations()])
    found = _rows(
        client,
        "SELECT name, create_table_query, comment, engine FROM system.tables "
        "WHERE database = {db:String}",
        db=database,
    )
    tables = {name: (create, comment) for name, create, comment, _ in found}
    applied: dict[int, str] = {}
    if "schema_migrations" in tables:
        applied = dict(
            _rows(
                client,
                f"SELECT version, any(name) FROM {database}.schema_migrations GROUP BY version",
            )
        )
    known = {migration.version for migration in migrations()}
    compared = _compared(client, settings, applied, {name: engine for name, _, _, engine in found})
    return SchemaStatus(
        database,
        True,
        applied,
        [_label(m) for m in migrations() if m.version not in applied],
        [
            f"{version:04d}_{name}"
            for version, name in sorted(applied.items())
            if version not in known
        ],
        [
            view.name
            for view in views()
            if fingerprint_of(tables.get(view.name, ("", ""))[1]) != view.fingerprint
        ],
        differences({name: create for name, (create, _) in tables.items()}, settings),
        compared.lacks,
        compared.wrong,
    )


def _compared(
    client: Client, settings: Settings, applied: Container[int], engines: dict[str, str]
) -> Findings:
    database = settings.clickhouse_database
    columns = "SELECT table, name, type FROM system.columns WHERE database = {db:String}"
    indexes = "SELECT table, name FROM system.data_skipping_indices WHERE database = {db:String}"
    return compare(
        settings,
        applied,
        engines,
        [Column(*row) for row in _rows(client, columns, db=database)],
        [(table, name) for table, name in _rows(client, indexes, db=database)],
    )


def _label(migration: Migration) -> str:
    return f"{migration.version:04d}_{migration.name}"


def _rows(client: Client, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]


class _Migrator:
    """One run over one connection."""

    def __init__(self, client: Client, settings: Settings, before_statement: Hook) -> None:
        self._client = client
        self._settings = settings
        self._before_statement = before_statement
        self._values = template_values(settings)
        self._database = settings.clickhouse_database

    def run(self) -> MigrationReport:
        found = read_status(self._client, self._settings)
        _refuse_newer(found, self._settings)
        if not found.exists:
            self._do(f"CREATE DATABASE IF NOT EXISTS {self._database}{self._values['on_cluster']}")
        # Before the pending migrations, which may alter a table that is missing.
        for lack in found.lacks:
            self._repair(lack)
        if found.pending:
            self._create_register()
        pending, lacks = [m for m in migrations() if m.version not in found.applied], found.lacks
        for migration in pending:
            self._apply(migration)
        found = read_status(self._client, self._settings)
        for view in views():
            if view.name in found.outdated_views:
                self._replace(view)
        for difference in found.differences:
            self._settle(difference)
        self._describe()
        return MigrationReport(
            self._database,
            max((m.version for m in migrations()), default=0),
            [_label(m) for m in pending],
            list(found.outdated_views),
            [f"{made.what} of {made.table} is {made.wanted}" for made in found.differences],
            [lack.what.removesuffix(" is missing") for lack in lacks],
            [
                f"{lack.what.removesuffix(' is missing')}: {lack.note}"
                for lack in lacks
                if lack.note
            ],
            list(found.wrong),
        )

    def _repair(self, lack: Lack) -> None:
        for statement in lack.statements:
            self._do(statement)
        logger.warning("schema: %s in database %s; it was made again", lack.what, self._database)

    def _apply(self, migration: Migration) -> None:
        for statement in migration.statements(self._settings):
            self._do(statement)
        self._do(
            f"INSERT INTO {self._database}.schema_migrations (version, name, checksum) "
            f"VALUES ({migration.version}, '{migration.name}', '{migration.checksum}')"
        )
        logger.info("schema: %s applied to database %s", _label(migration), self._database)

    def _replace(self, view: View) -> None:
        self._do(view.statement(self._settings))
        logger.info("schema: view %s.%s is up to date", self._database, view.name)

    def _settle(self, difference: Difference) -> None:
        for statement in difference.statements:
            self._do(statement)
        logger.info(
            "schema: %s of %s.%s is %s",
            difference.what,
            self._database,
            difference.table,
            difference.wanted,
        )

    def _create_register(self) -> None:
        self._do(
            f"CREATE TABLE IF NOT EXISTS {self._table('schema_migrations')} (version UInt32, name "
            "String, checksum String, "
            "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = "
            f"{self._values['replicated']}MergeTree ORDER BY version"
        )

    def _describe(self) -> None:
        """Set the comments of tables and columns where they differ."""
        present = {
            (table, column): comment
            for table, column, comment in _rows(
                self._client,
                "SELECT table, name, comment FROM system.columns WHERE database = {db:String}",
                db=self._database,
            )
        }
        for table, texts in descriptions.columns().items():
            wrong = [
                (c, text) for c, text in texts.items() if present.get((table, c), text) != text
            ]
            if wrong:
                changes = ", ".join(
                    f"COMMENT COLUMN {column} {_quoted(text)}" for column, text in wrong
                )
                self._do(f"ALTER TABLE {self._table(table)} {changes}")
        described = dict(
            _rows(
                self._client,
                "SELECT name, comment FROM system.tables WHERE database = {db:String}",
                db=self._database,
            )
        )
        for table, text in descriptions.TABLES.items():
            if described.get(table, text) != text:
                self._do(f"ALTER TABLE {self._table(table)} MODIFY COMMENT {_quoted(text)}")

    def _table(self, name: str) -> str:
        return f"{self._database}.{name}{self._values['on_cluster']}"

    def _do(self, statement: str) -> None:
        self._before_statement(statement)
        for attempt in range(1, _TRIES + 1):
            try:
                self._client.command(statement)
                return
            except ClickHouseError as error:
                if error_code(error) not in _RACES or attempt == _TRIES:
                    raise
                time.sleep(0.05 * 2**attempt)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
