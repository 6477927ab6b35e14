"""Rows of the alerts topic: each record is one change of an alert. ClickHouse keeps the alerts as they stand from them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.misfits import alert_misfit
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    ARRIVAL_TYPES,
    Block,
    Blocks,
    Columns,
    Table,
    arrival_columns,
    read_values,
)

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(6, 'UTC')"
_PLAIN: Final = {
    "alert_id": "String",
    "seq": "UInt64",
    "state": _LOW,
    "severity": _LOW,
    "alert": _LOW,
    "rule": _LOW,
    "policy": _LOW,
    "project": _LOW,
    "environment": _LOW,
    "agent": _LOW,
    "agent_version": _LOW,
    "task": _LOW,
    "trace_id": "String",
    "subject": "String",
    "step_ids": "Array(String)",
    "value": "Nullable(Float64)",
    "threshold": "Nullable(Float64)",
    "unit": _LOW,
    "baseline": "Nullable(Float64)",
    "baseline_runs": "UInt64",
    "message": "String",
    "detail": "String",
    "running": "Bool",
    "findings": "UInt64",
    "opened_at": _TIME,
    "updated_at": _TIME,
    "acknowledged_by": "String",
    "action": _LOW,
    "finding_ids": "Array(String)",
    "source_partition": "Int32",
    "source_offset": "Int64",
    "change": _LOW,
    "by": "String",
    "reopened": "UInt64",
    "runs": "UInt64",
    "trace_ids": "Array(String)",
    "incident_id": "String",
    "opened_by": "String",
    "user_id": "String",
    "quoted": "String",
    "withdrawn": "Bool",
}
_MADE: Final = {"resolved_at": f"Nullable({_TIME})", "silenced_until": f"Nullable({_TIME})"}

ALERTS: Final = Table("alert_events_raw", {**_PLAIN, **_MADE, **ARRIVAL_TYPES})

_GETTERS: Final = {name: attrgetter(name) for name in _PLAIN}
_decode = msgspec.json.Decoder(AlertStruct).decode


def build_alerts(records: Sequence[Record], source: Source) -> Blocks:
    """The block of a batch. Tombstones are left out; a record that is no alert goes to the dead letter."""
    built = Blocks()
    said = read_values(records, _read, built)
    if said:
        alerts, held = zip(*said, strict=True)
        built.blocks.append(Block(ALERTS, _columns(alerts, held, source), len(said)))
    return built


def _read(value: bytes) -> Alert:
    """A record's alert. Raises ``ValueError`` for what no row can hold."""
    alert = _decode(value)
    if why := alert_misfit(alert):
        raise ValueError(why)
    return alert


def _columns(alerts: Sequence[Alert], records: Sequence[Record], source: Source) -> Columns:
    columns: Columns = {name: list(map(get, alerts)) for name, get in _GETTERS.items()}
    columns["resolved_at"] = [alert.resolved_at or None for alert in alerts]
    columns["silenced_until"] = [alert.silenced_until or None for alert in alerts]
    return columns | arrival_columns(records, source)
