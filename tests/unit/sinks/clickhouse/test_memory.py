"""What the sink holds while it inserts, and that it lets go of it without waiting for the
collector.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.rows import Block, Table

TABLE = Table("t", {"a": "Int64", "b": "String"})


class Column(list[Any]):
    """A list that can be watched."""


class Store:
    """Encodes what it is given as the real client does, and forgets it."""

    server_settings: dict[str, Any] = {}  # noqa: RUF012 only read

    def __init__(self, compression: str | None) -> None:
        self.write_compression = compression
        self.sent: list[bytes] = []

    def raw_insert(self, table: str, columns: list[str], rows: memoryview, **_more: Any) -> None:
        self.sent.append(bytes(rows))

    def insert(self, context: InsertContext) -> None:
        context.current_block = 0
        for _ in NativeTransform().build_insert(context):
            pass


@pytest.fixture
def no_collector() -> Iterator[None]:
    """During a test only what has no references is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.usefixtures("no_collector")
def test_an_inserted_block_is_let_go(compression: str | None) -> None:
    """The driver's context refers to itself, and to all columns: many batches of them would wait
    for the collector.
    """
    inserter = Inserter(Settings(clickhouse_url="http://127.0.0.1:1"))
    inserter._local.client = cast(Client, store := Store(compression))
    column = Column(range(100))
    # The reference dies when the block is freed by counting, without the collector.
    watched = weakref.ref(column)
    block = Block(TABLE, {"a": column, "b": ["x"] * 100}, 100)
    inserter.insert(block, "token")
    del block, column
    assert watched() is None
    # Columns and rows, no statement.
    assert [data[:2] for data in store.sent] == ([] if compression else [b"\2\x64"])
