"""Records of the fleet topic that are about baselines: which they are, and taking them over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

import msgspec

from stepstream.schemas.fleet import FleetBaselineStruct
from stepstream.stream.baselines.history import Owner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.usage.fleet_records import checked_baseline

log = logging.getLogger("stepstream.worker")
_decode = msgspec.json.Decoder(FleetBaselineStruct).decode


class KeyValue(Protocol):
    """A record as librdkafka gives it."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


def kind_of(key: bytes | None) -> str:
    """What a record of the fleet topic is: ``baseline``, ``learnt`` ...; empty for the worker's own."""
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
