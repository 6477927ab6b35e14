"""Records of the fleet topic that are about baselines: which they are, and taking them over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from stepstream.schemas.fleet import FleetBaselineStruct, LearntDayStruct
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.times import DAY_US
from stepstream.stream.baselines.history import Owner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.sketch import MOST, ZERO, bucket_of

log = logging.getLogger("stepstream.worker")
MAX_BUCKET: Final = bucket_of(MOST)
MAX_SHARES: Final = 100
MAX_DAY: Final = MAX_TIME_US // DAY_US
_decode = msgspec.json.Decoder(FleetBaselineStruct).decode


class KeyValue(Protocol):
    """A record as librdkafka gives it."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


def kind_of(key: bytes | None) -> str:
    """What a record of the fleet topic is: ``baseline``, ``learnt`` ....

    Empty for the worker's own.
    """
    parts = (key or b"").split(b"|", 2)
    return (
        parts[1].decode("utf-8", "replace")
        if len(parts) == 3 and not parts[0].startswith(b"!")
        else ""
    )


def apply_baselines(baselines: Baselines, records: Iterable[KeyValue]) -> int:
    """Take over the baselines among records of the fleet topic; returns how many there were.

    One that cannot be read is ignored: the one before it stays in force.
    """
    applied = 0
    for record in records:
        if kind_of(record.key()) != "baseline":
            continue
        value = record.value()
        try:
            if value:
                baselines.apply(checked_baseline(_decode(value)))
            else:
                baselines.forget(owner_of(record.key() or b""))
            applied += 1
        except Exception as error:  # whatever it is: the one before stays in force
            log.error("baseline %r on the fleet topic is ignored: %s", record.key(), error)
    return applied


def owner_of(key: bytes) -> Owner:
    """The owner that a baseline's key names. Raises ``ValueError`` for another key."""
    parts = [unquote(part) for part in key.decode().split("|")]
    if len(parts) != 5:
        raise ValueError("a baseline's key has five parts")
    project, _, environment, agent, task = parts
    return Owner(project, environment, agent, task)


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(what)


def checked_day(day: LearntDayStruct) -> LearntDayStruct:
    _check(
        0 <= day.day <= MAX_DAY and 0 <= day.settled_until < MAX_TIME_US,
        f"no day: {day.day}, {day.settled_until}",
    )
    for name, amounts in day.amounts.items():
        is_right = ZERO <= amounts.low <= MAX_BUCKET and len(amounts.counts) <= MAX_BUCKET + 2
        _check(
            is_right and all(0 <= count <= MAX_COUNT for count in amounts.counts),
            f"no counts: {name[:40]}",
        )
    return day


def checked_baseline(baseline: FleetBaselineStruct) -> FleetBaselineStruct:
    """The baseline, if it is one. Raises ``ValueError``."""
    for version in (baseline, baseline.earlier):
        if version is None:
            continue
        _check(0 <= version.as_of < MAX_TIME_US, f"as_of is no time: {version.as_of}")
        is_right = all(
            len(found) == len(baseline.shares) <= MAX_SHARES for found in version.values.values()
        )
        _check(is_right, "not as many values as shares")
    return baseline
