"""Version 1 only grows: records and fields of the first release keep their meaning.

Lines are added to the golden files; none is changed or removed within version 1. One exception: a
record that was rejected for one field may be accepted once that field is repaired.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import pytest

from stepstream.schemas.accept import CLAMPS, REASONS, Accepted, Misrouted, Rejected, accept
from stepstream.schemas.step import Step
from tests.support.generated import field_lines
from tests.support.paths import GOLDEN

RECORDS: Final[list[dict[str, Any]]] = json.loads((GOLDEN / "step-v1.records.json").read_text())


def read(record: dict[str, Any]) -> Accepted | Misrouted | Rejected:
    text, key = record.get("value"), record["key"]
    value = (
        bytes.fromhex(record["value_hex"])
        if "value_hex" in record
        else None
        if text is None
        else text.encode()
    )
    return accept(
        value,
        key=None if key is None else key.encode(),
        partition=record["partition"],
        partitions=record["partitions"],
        timestamp_us=record["timestamp_us"],
        headers=[(name, content.encode()) for name, content in record["headers"]],
    )


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_records_of_version_1_are_validated_as_before(record: dict[str, Any]) -> None:
    """The same bytes give the same outcome: step, clamps and cost, or partition, or reason."""
    expect = record["expect"]
    verdict = read(record)
    if isinstance(verdict, Accepted):
        assert expect["outcome"] == "accepted"
        # The whole step: a field that is read differently changes trajectories of old records.
        assert verdict.step == msgspec.convert(expect["step"], Step)
        assert (list(verdict.clamped), verdict.cost_nanos) == (
            expect["clamped"],
            expect["cost_nanos"],
        )
    elif isinstance(verdict, Misrouted):
        assert expect == {"outcome": "misrouted", "partition": verdict.partition}
    else:
        assert expect == {"outcome": "rejected", "reason": verdict.reason}


def test_outcomes_of_version_1_keep_their_names() -> None:
    """Reasons and clamps are read by machines (dead letter, metrics): the golden ones still
    exist.
    """
    assert {
        r["expect"]["reason"] for r in RECORDS if r["expect"]["outcome"] == "rejected"
    } <= REASONS.keys()
    assert {clamp for r in RECORDS for clamp in r["expect"].get("clamped", ())} <= CLAMPS.keys()


def test_no_field_of_version_1_is_removed_or_changed() -> None:
    """Every field listed is there with the same type and default.

    A new field has a default and is listed.
    """
    listed = (GOLDEN / "step-v1.fields.txt").read_text().splitlines()
    now = field_lines()
    assert [line for line in listed if line not in now] == [], "removed or changed within version 1"
    added = [line for line in now if line not in listed]
    assert [line for line in added if line.endswith("= required")] == [], (
        "a new field needs a default"
    )
    assert added == [], "append new fields to tests/golden/step-v1.fields.txt"
