"""Backups with ClickHouse's own BACKUP and RESTORE, and what a restored store needs to be
consistent.

A backup is taken while sinks run, so its tables are of slightly different moments, and the offsets
committed in Kafka are later ones. A restore corrects both: rollups are compared with the rows, and
the sinks' offsets are set back to a little before the newest rows. Steps that are read a second
time are recognised by the sink.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stepstream.common.kafka import client_config, consumer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse.client import connect_server, explained
from stepstream.sinks.clickhouse.errors import StoreError, first_line
from stepstream.sinks.clickhouse.handlers import PROGRESS_TABLES
from stepstream.sinks.clickhouse.migration import migrate
from stepstream.sinks.clickhouse.reconcile import reconcile
from stepstream.sinks.clickhouse.schema import template_values

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 24 * 3600
_NO_SUCH_BACKUP: Final = 599
_BACKUP_EXISTS: Final = 598


@dataclass(frozen=True)
class BackupReport:
    """A backup that was written."""

    place: str
    files: int
    bytes: int


@dataclass(frozen=True)
class RestoreReport:
    """What was restored.

    ``rewound`` holds the offset that sinks resume at, by topic (without prefix) and partition.
    """

    steps: int
    runs: int
    applied: list[str]
    repaired: int
    rewound: dict[tuple[str, int], int] = field(default_factory=dict)


def backup(settings: Settings, place: str, *, base: str = "") -> BackupReport:
    """Write a backup to ``place``, with ``base`` only what changed since that earlier backup.

    Raises a ``StoreError``.
    """
    client = connect_server(settings, timeout_s=TIMEOUT_S)
    more = f" SETTINGS base_backup = {_destination(base)}" if base else ""
    try:
        written = client.query(
            f"BACKUP DATABASE {settings.clickhouse_database}{_on_cluster(settings)} TO "
            f"{_destination(place)}{more}"
        )
        rows = client.query(
            "SELECT num_files, total_size FROM system.backups WHERE id = {id:String}",
            parameters={"id": written.result_rows[0][0]},
        ).result_rows
        return BackupReport(place, *map(int, rows[0])) if rows else BackupReport(place, 0, 0)
    except ClickHouseError as error:
        raise _explained(error, place, settings) from error
    finally:
        client.close()


def restore(
    settings: Settings, place: str, *, replace: bool = False, source: str = ""
) -> RestoreReport:
    """Restore the database from ``place`` and bring its schema up to date.

    ``source`` is its name in the backup, if that is another one. Sinks must not run. Raises a
    ``StoreError``.
    """
    group = _Group(settings) if settings.kafka_brokers else None
    # Kafka refuses to change the offsets of a group with members, whose sinks would also insert.
    if group is not None:
        group.require_empty()
    client = connect_server(settings, timeout_s=TIMEOUT_S)
    try:
        _check(client, settings, place, source)
        _make_room(client, settings, replace)
        _restore(client, settings, place, source, settings.clickhouse_database)
        applied = migrate(settings).applied
        repaired = len(reconcile(settings, at_rest=True).differences)
        steps, runs = (
            int(str(client.command(f"SELECT count() FROM {settings.clickhouse_database}.{view}")))
            for view in ("steps", "runs")
        )
        rewound = group.rewind(client) if group is not None else {}
        return RestoreReport(steps, runs, applied, repaired, rewound)
    except ClickHouseError as error:
        raise _explained(error, place, settings) from error
    finally:
        client.close()


def _restore(
    client: Client, settings: Settings, place: str, source: str, target: str, more: str = ""
) -> None:
    renamed = f"{source or settings.clickhouse_database} AS {target}"
    client.query(
        f"RESTORE DATABASE {renamed}{_on_cluster(settings)} FROM {_destination(place)}{more}"
    )


def _check(client: Client, settings: Settings, place: str, source: str) -> None:
    """Raise, before anything is dropped, where there is no such backup or not of such a
    database.
    """
    scratch = f"{settings.clickhouse_database}_restore_check"
    client.command(f"DROP DATABASE IF EXISTS {scratch}{_on_cluster(settings)} SYNC")
    try:
        _restore(client, settings, place, source, scratch, " SETTINGS structure_only = true")
    finally:
        client.command(f"DROP DATABASE IF EXISTS {scratch}{_on_cluster(settings)} SYNC")


def _make_room(client: Client, settings: Settings, replace: bool) -> None:
    """Drop the database. Raises ``StoreError`` where it has rows, unless ``replace`` is set."""
    database = settings.clickhouse_database
    filled = client.query(
        "SELECT name, total_rows FROM system.tables "
        "WHERE database = {db:String} AND total_rows > 0 AND name != 'schema_migrations'",
        parameters={"db": database},
    ).result_rows
    if filled and not replace:
        raise StoreError(
            f"database {database} at {settings.clickhouse_url} has data ({filled[0][0]}: "
            f"{filled[0][1]} rows): restore into "
            "another one (--clickhouse-database), or drop what is there (--replace)"
        )
    client.command(f"DROP DATABASE IF EXISTS {database}{_on_cluster(settings)} SYNC")


def _destination(place: str) -> str:
    """A place as BACKUP and RESTORE name it."""
    if place.startswith(("http://", "https://")):
        return f"S3({_quoted(place)})"
    if place.startswith("disk:"):
        disk, _, path = place.removeprefix("disk:").partition("/")
        return f"Disk({_quoted(disk)}, {_quoted(path)})"
    if not place or place.startswith((".", "/")):
        raise StoreError(
            f"{place!r} cannot be a backup: give a name (in the server's backup folder), "
            "disk:DISK/PATH or a URL"
        )
    return f"File({_quoted(place)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _on_cluster(settings: Settings) -> str:
    return template_values(settings)["on_cluster"]


def _explained(error: ClickHouseError, place: str, settings: Settings) -> StoreError:
    code = getattr(error, "code", 0)
    if code == _NO_SUCH_BACKUP:
        return StoreError(f"ClickHouse at {settings.clickhouse_url} has no backup {place!r}")
    if code == _BACKUP_EXISTS:
        return StoreError(
            f"there is a backup {place!r} already: give another name, with --base {place} to "
            "write only what changed"
        )
    if code == 0:
        return explained(error, settings)
    return StoreError(
        f"ClickHouse at {settings.clickhouse_url}, backup {place!r}: {first_line(error)}"
    )


class _Group:
    """The sinks' consumer group, while no sink runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = f"{settings.topic_prefix}.{settings.sink_group}"
        self._admin = AdminClient(client_config(settings))

    def require_empty(self) -> None:
        """Raise ``StoreError`` where a sink runs, or Kafka does not answer."""
        try:
            found = self._admin.describe_consumer_groups([self._name], request_timeout=10)[
                self._name
            ].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return
            raise StoreError(
                f"Kafka at {self._settings.kafka_brokers} does not answer whether sinks run: "
                f"{error}"
            ) from error
        if found.members:
            raise StoreError(
                f"sinks are running on this store ({len(found.members)} in group {self._name}): "
                "stop them first"
            )

    def rewind(self, client: Client) -> dict[tuple[str, int], int]:
        """Commit an offset a little before the highest stored one, for each partition."""
        wanted: dict[tuple[str, int], int] = {}
        for name in PROGRESS_TABLES:
            wanted |= self._of_topic(client, name)
        places = [
            TopicPartition(topic(self._settings.topic_prefix, name), part, at)
            for (name, part), at in wanted.items()
        ]
        if places:
            request = ConsumerGroupTopicPartitions(self._name, places)
            for place in (
                self._admin.alter_consumer_group_offsets([request])[self._name]
                .result(30)
                .topic_partitions
            ):
                if place.error is not None:
                    raise StoreError(
                        f"the sinks' offset of {place.topic} {place.partition} cannot be set: "
                        f"{place.error}"
                    )
        return wanted

    def _of_topic(self, client: Client, name: str) -> dict[tuple[str, int], int]:
        full = topic(self._settings.topic_prefix, name)
        try:
            described = self._admin.describe_topics(TopicCollection([full]), request_timeout=10)[
                full
            ].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return {}
            raise
        rows = client.query(
            "SELECT kafka_partition, max(kafka_offset) FROM "
            f"{self._settings.clickhouse_database}.{PROGRESS_TABLES[name]} "
            "WHERE kafka_topic_id = {topic:String} GROUP BY 1",
            parameters={"topic": str(described.topic_id)},
        ).result_rows
        stored = {int(partition): int(offset) for partition, offset in rows}
        # The backup may have only some parts of the last batch, so the one before it is read again
        # too.
        back = 2 * self._settings.sink_batch_rows
        reader = consumer(self._settings, self._name)
        try:
            starts = {}
            for partition in range(len(described.partitions)):
                low, high = reader.get_watermark_offsets(
                    TopicPartition(full, partition), timeout=10
                )
                starts[name, partition] = min(high, max(low, stored.get(partition, -1) + 1 - back))
            return starts
        finally:
            reader.close()
