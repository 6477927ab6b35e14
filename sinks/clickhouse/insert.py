"""Inserts blocks, with the settings that make a repeated insert count once."""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from typing import Any, Final

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batcher import MAX_ROWS
from stepstream.sinks.batching.writer import RowsRefused
from stepstream.sinks.clickhouse.client import connect
from stepstream.sinks.clickhouse.errors import error_code
from stepstream.sinks.clickhouse.rows import Block, Table

TIMEOUT_S: Final = 120

SETTINGS: Final[dict[str, Any]] = {
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "async_insert": 0,
    # One insert is one block, so that its token means all of it, whatever the server's defaults.
    "max_insert_threads": 1,
    "min_insert_block_size_rows": MAX_ROWS + 1,
    "min_insert_block_size_bytes": 0,
    # A batch may have steps of many days; each day is a partition of the table.
    "max_partitions_per_insert_block": 0,
}

STATEMENT_END: Final = b" FORMAT Native\n"

NEWER_SETTINGS: Final[dict[str, Any]] = {"deduplicate_insert": "enable"}
"""Settings of newer servers, where this one replaced ``insert_deduplicate``."""

ROW_ERRORS: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
"""Errors of rows that cannot be stored, however often they are sent. All others may pass."""


class Inserter:
    """Inserts blocks, over one connection per thread; after an error it is replaced."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._types: dict[str, ClickHouseType] = {}

    def insert(self, block: Block, token: str) -> float:
        """Insert the block under the token and return the seconds it took; a known token changes
        nothing.

        Raises ``RowsRefused`` where a retry is useless; any other exception is worth one.
        """
        began = time.monotonic()
        client = self.client()
        context: InsertContext | None = None
        try:
            context = self._context(block, token, client.server_settings)
            _send(client, context)
        except DataError as error:
            # A value does not fit its column. The client noticed, so no complete block was sent.
            raise RowsRefused(str(error)) from error
        except (OverflowError, ValueError, TypeError) as error:
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        except ClickHouseError as error:
            if error_code(error) in ROW_ERRORS:
                raise RowsRefused(str(error)) from error
            self.drop_client()
            raise
        finally:
            if context is not None:
                # The context refers to itself, so its columns would stay in memory until the
                # collector runs: 511 instead of 320 MiB with three threads
                # (python -m benchmarks.sink_memory, "cleared_contexts").
                vars(context).clear()
        return time.monotonic() - began

    def client(self) -> Client:
        """This thread's connection. Raises a ``StoreError``."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = connect(self._settings, timeout_s=TIMEOUT_S)
        return client

    def drop_client(self) -> None:
        """Close this thread's connection; the next use opens another."""
        client: Client | None = getattr(self._local, "client", None)
        self._local.client = None
        if client is not None:
            client.close()

    def _context(self, block: Block, token: str, known: Container[str] = ()) -> InsertContext:
        newer = {name: value for name, value in NEWER_SETTINGS.items() if name in known}
        return InsertContext(
            f"{self._settings.clickhouse_database}.{block.table.name}",
            list(block.columns),
            [self._type(block.table, name) for name in block.columns],
            list(block.columns.values()),
            column_oriented=True,
            settings={**SETTINGS, **newer, "insert_deduplication_token": token},
            block_size=MAX_ROWS,
        )

    def _type(self, table: Table, column: str) -> ClickHouseType:
        name = table.types[column]
        found = self._types.get(name)
        if found is None:
            found = self._types[name] = get_from_name(name)
        return found


def _send(client: Client, context: InsertContext) -> None:
    """Insert the context's one block; without compression its bytes are sent without copying
    them.
    """
    if client.write_compression:
        client.insert(context=context)
        return
    data = b"".join(NativeTransform.build_insert(context))
    if context.insert_exception is not None:
        raise context.insert_exception
    # clickhouse_connect sends any buffer, although it is annotated as bytes. The statement goes
    # into the URL.
    rows: Any = memoryview(data)[data.index(STATEMENT_END) + len(STATEMENT_END) :]
    client.raw_insert(
        context.table,
        context.column_names,
        rows,
        settings=context.settings,
        fmt="Native",
    )
