"""Rows of topics whose records have a row each, with a column per field: alerts, deliveries,
findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.misfits import alert_misfit, delivery_misfit, finding_misfit
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    Block,
    Blocks,
    FieldColumns,
    arrival_columns,
    read_values,
    sink_table,
)

ALERTS: Final = sink_table("alert_events_raw")
DELIVERIES: Final = sink_table("deliveries_raw")
FINDINGS: Final = sink_table("findings_raw")


class _PlainRows:
    """Makes the rows of one topic."""

    def __init__(self, fields: FieldColumns, misfit: Callable[[Any], str]) -> None:
        """``misfit`` returns why no row can hold a value, or an empty text."""
        self._fields = fields
        self._misfit = misfit
        self._decode = msgspec.json.Decoder(fields.struct).decode

    def build(self, records: Sequence[Record], source: Source) -> Blocks:
        """The block of a batch.

        Tombstones are left out; records without the right form are refused.
        """
        blocks = Blocks()
        values = read_values(records, self._read, blocks)
        if values:
            structs, kept = zip(*values, strict=True)
            columns = self._fields.columns(structs) | arrival_columns(kept, source)
            blocks.blocks.append(Block(self._fields.table, columns, len(structs)))
        return blocks

    def _read(self, value: bytes) -> Any:
        decoded = self._decode(value)
        if why := self._misfit(decoded):
            raise ValueError(why)
        return decoded


_alerts: Final = _PlainRows(FieldColumns(ALERTS, AlertStruct), alert_misfit)
_deliveries: Final = _PlainRows(FieldColumns(DELIVERIES, DeliveryStruct), delivery_misfit)
_findings: Final = _PlainRows(FieldColumns(FINDINGS, FindingStruct), finding_misfit)

build_alerts: Final = _alerts.build
"""Each record is one change of an alert; ClickHouse keeps the newest of each alert in another
table.
"""

build_deliveries: Final = _deliveries.build
"""Each record is a line of the delivery log."""


def build_findings(records: Sequence[Record], source: Source) -> Blocks:
    """What detectors found, and what people did with alerts."""
    blocks = _findings.build(records, source)
    # The worker reads the topic too, and dead-letters what has not the right form: one letter is
    # enough.
    blocks.skipped["malformed_json"] += len(blocks.refused)
    blocks.refused.clear()
    return blocks
