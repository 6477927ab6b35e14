"""What the store holds of a partition's offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from stepstream.sinks.batching.records import Source
from stepstream.sinks.clickhouse.step_columns import STEPS
from stepstream.sinks.clickhouse.window import KEY_SQL


def highest_offset(client: Client, table: str, source: Source, *, at_least: int = 0) -> int | None:
    """The highest offset of the partition in the table; None where there is none from ``at_least``
    on.
    """
    rows = client.query(
        f"SELECT count(), max(kafka_offset) FROM {table} WHERE kafka_topic_id = {{topic:String}} "
        "AND kafka_partition = {partition:Int32} AND kafka_offset >= {low:Int64}",
        parameters={"topic": source.topic_id, "partition": source.partition, "low": at_least},
    ).result_rows
    count, highest = rows[0]
    return int(highest) if count else None


def rows_between(client: Client, table: str, source: Source, first: int, last: int) -> int:
    """How many rows the table holds of the partition's offsets first..last."""
    rows = client.query(
        f"SELECT count() FROM {table} WHERE kafka_topic_id = {{topic:String}} AND kafka_partition "
        f"= {{partition:Int32}} "
        "AND kafka_offset BETWEEN {first:Int64} AND {last:Int64}",
        parameters={
            "topic": source.topic_id,
            "partition": source.partition,
            "first": first,
            "last": last,
        },
    ).result_rows
    return int(rows[0][0])


def keys_between(
    client: Client, source: Source, offsets: tuple[int, int], left_out: tuple[int, int] | None
) -> Sequence[int]:
    """Keys of the ended steps stored of the offsets [from, to), without those of the range
    ``left_out``.
    """
    if offsets[0] >= offsets[1]:
        return ()
    parameters: dict[str, Any] = {
        "topic": source.topic_id,
        "partition": source.partition,
        "first": offsets[0],
        "end": offsets[1],
        "out_first": left_out[0] if left_out else 0,
        "out_end": left_out[1] if left_out else 0,
    }
    result = client.query(
        f"SELECT {KEY_SQL} AS key FROM {STEPS.name} WHERE kafka_topic_id = {{topic:String}} "
        "AND kafka_partition = {partition:Int32} AND kafka_offset >= {first:Int64} AND "
        "kafka_offset < {end:Int64} "
        "AND NOT (kafka_offset >= {out_first:Int64} AND kafka_offset < {out_end:Int64})",
        parameters=parameters,
    )
    columns: Sequence[Sequence[int]] = result.result_columns
    return columns[0] if columns else ()
