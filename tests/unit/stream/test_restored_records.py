"""A worker's own impossible records: not restored at the start, so nothing raises or stalls."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stepstream.schemas.prices import PriceBook
from stepstream.schemas.times import DAY_US
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import checked_state, decode_state, encode_state
from stepstream.stream.core.dead_letter_rate import DeadLetterRate
from stepstream.stream.core.poison import PoisonLedger
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.usage.fleet_records import FleetRecords
from tests.support.stream_world import START_US, event, record_of

LATEST_US = START_US + 2 * DAY_US
OTHER_YEAR_US = START_US + 400 * DAY_US


def checkpoint(**fields: Any) -> bytes:
    valid = dict.fromkeys(("sealed_until", "watermark_us", "judged_us"), START_US)
    return json.dumps(
        valid | {"version": 1, "through": 5, "progress": {"0": START_US}, "judge": {}} | fields
    ).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"progress": {"0": OTHER_YEAR_US}},
        {"progress": {"0": 10**30}},
        {"watermark_us": OTHER_YEAR_US},
        {"judged_us": -1},
        {"through": 2**53 - 1},
        {"judge": {"versions": {"agents": 5}}},
        {"judge": {"versions": {"agents": [["shop"]]}}},
        {"judge": {"versions": {"agents": [[["p", "e", "a"], {"v": "x"}]]}}},
        {"judge": {"firing": [5]}},
    ],
)
def test_a_checkpoint_that_cannot_be(fields: dict[str, Any]) -> None:
    """One of a later year would stop every window; one that does not decode every start."""
    found = FleetRecords()
    # A good one first: the same record with wrong fields is refused below.
    found.take(b"!windows|5", checkpoint(), LATEST_US)
    assert len(found.checkpoints) == 1
    with pytest.raises((ValueError, msgspec.ValidationError)):
        found.take(b"!windows|5", checkpoint(**fields), LATEST_US)


@pytest.mark.parametrize(
    "fields",
    [
        {"closed_at_us": OTHER_YEAR_US},
        {"last_append_us": 2**63},
        {"first_append_us": -1},
        {"phases": 2**64 - 1},
    ],
)
def test_a_state_that_cannot_be(fields: dict[str, Any]) -> None:
    """A run that closes in a later year would keep the partition's safe offset until then."""
    stage = AssemblePartition(0, 1, rules=RuleBook((), make_detector), prices=PriceBook())
    stage.process(record_of(0, event("ab" * 16, "cd" * 8, "", "start", START_US)))
    (tracked,) = stage.runs.values()
    state = decode_state(encode_state(tracked.run, 0))
    assert checked_state(state, LATEST_US) is state
    with pytest.raises(ValueError, match=next(iter(fields))):
        checked_state(msgspec.structs.replace(state, **fields), LATEST_US)


@pytest.mark.parametrize(
    ("field", "value"),
    [("at_us", 10**30), ("skipped_at_us", 10**18), ("offset", -2), ("tries", 2**63)],
)
def test_a_note_of_a_try_that_cannot_be(field: str, value: int) -> None:
    """Notes of skips in another year would halt the partition at the next one."""
    note = {"offset": 9, "tries": 3, "traceback": "", "at_us": START_US, field: value}
    with pytest.raises((ValueError, msgspec.ValidationError)):
        PoisonLedger("steps", 0, "state").restore(json.dumps(note).encode(), LATEST_US)


def test_a_note_of_another_year() -> None:
    ledger, fuse = PoisonLedger("steps", 0, "state"), DeadLetterRate("steps", 0, "state", 5)
    with pytest.raises(ValueError, match=r"after|later"):
        ledger.restore(
            b'{"offset":9,"tries":3,"traceback":"","at_us":%d}' % OTHER_YEAR_US, LATEST_US
        )
    with pytest.raises(ValueError, match=r"after|later"):
        fuse.restore(b'{"since_us":1,"at_us":%d}' % OTHER_YEAR_US, LATEST_US)
    assert not ledger
    assert not fuse.is_exceeded
