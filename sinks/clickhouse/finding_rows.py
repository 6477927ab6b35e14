"""Rows of the findings topic: what detectors saw, notes included, and what people said about alerts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec

from stepstream.schemas.alert import Finding, FindingStruct
from stepstream.schemas.misfits import finding_misfit
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
    "finding_id": "String",
    "state": _LOW,
    "time": _TIME,
    "severity": _LOW,
    "alert": _LOW,
    "rule": _LOW,
    "policy": _LOW,
    "project": _LOW,
    "environment": _LOW,
    "agent": _LOW,
    "agent_version": _LOW,
    "task": _LOW,
    "user_id": "String",
    "trace_id": "String",
    "subject": "String",
    "step_ids": "Array(String)",
    "value": "Nullable(Float64)",
    "threshold": "Nullable(Float64)",
    "unit": _LOW,
    "baseline": "Nullable(Float64)",
    "baseline_runs": "UInt64",
    "message": "String",
    "quoted": "String",
    "detail": "String",
    "running": "Bool",
    "withdrawn": "Bool",
    "action": _LOW,
    "by": "String",
    "alert_id": "String",
}

FINDINGS: Final = Table("findings_raw", {**_PLAIN, **ARRIVAL_TYPES})

_GETTERS: Final = {name: attrgetter(name) for name in _PLAIN}
_decode = msgspec.json.Decoder(FindingStruct).decode


def build_findings(records: Sequence[Record], source: Source) -> Blocks:
    """The block of a batch. Tombstones are left out, and what is no finding: the worker dead-letters that."""
    built = Blocks()
    said = read_values(records, _read, built)
    built.skipped["malformed_json"] += len(built.refused)
    built.refused.clear()
    if said:
        findings, held = zip(*said, strict=True)
        columns: Columns = {name: list(map(get, findings)) for name, get in _GETTERS.items()}
        built.blocks.append(Block(FINDINGS, columns | arrival_columns(held, source), len(said)))
    return built


def _read(value: bytes) -> Finding:
    """A record's finding. Raises ``ValueError`` for what no row can hold."""
    finding = _decode(value)
    if why := finding_misfit(finding):
        raise ValueError(why)
    return finding
