"""Reads refused records from the dead-letter topic, and sends them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message

from stepstream.common.kafka import Outgoing, producer, read_to_end, send_and_wait
from stepstream.common.letters import letter_source
from stepstream.schemas.batches import UNREADABLE
from stepstream.schemas.deadletter import OURS, Source, number_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
    TOPIC_NAMES,
    topic,
)
from stepstream.stream.core.poison import LEDGER_TOPICS, PoisonLedger

REPLAYED: Final = "stepstream-replayed-from"
"""On a record that was sent again: its offset in the dead letter."""
SEND_S: Final = 60.0


@dataclass(frozen=True)
class Letter:
    """One refused record. ``offset`` is its place in the dead letter, which names it."""

    offset: int
    time_ms: int
    topic: str
    partition: int
    source_offset: int
    reason: str
    detail: str
    by: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    """Those that it came with."""


def read(settings: Settings, *, since_ms: int = 0, reason: str = "") -> Iterator[Letter]:
    """Every refused record still kept, the oldest first, each once. Raises ``KafkaUnreachable``.

    A process that is killed while it refuses a record refuses it again: only the first letter
    from each source offset is returned.
    """
    seen: set[Source] = set()
    for message in read_to_end(settings, topic(settings.topic_prefix, "deadletter")):
        letter = _letter(message)
        source = letter_source(message)
        if source is not None:
            if source in seen:
                continue
            seen.add(source)
        if letter.time_ms >= since_ms and reason in ("", letter.reason):
            yield letter


def _letter(message: Message) -> Letter:
    headers = [(name, _bytes(value) or b"") for name, value in _headers(message)]
    ours = {name: value.decode(errors="replace") for name, value in headers if name in OURS}
    return Letter(
        offset=message.offset() or 0,
        time_ms=message.timestamp()[1],
        topic=ours.get(DEADLETTER_TOPIC, ""),
        partition=number_of(ours.get(DEADLETTER_PARTITION, "")),
        source_offset=number_of(ours.get(DEADLETTER_OFFSET, "")),
        reason=ours.get(DEADLETTER_REASON, ""),
        detail=ours.get(DEADLETTER_DETAIL, ""),
        by=ours.get(DEADLETTER_BY, ""),
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, value) for name, value in headers if name not in OURS),
    )


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def replay(settings: Settings, letters: Iterable[Letter]) -> tuple[int, list[Letter]]:
    """Send letters to their original topics, with their original key, value and headers.

    Returns the number of acknowledged records, and the letters that were not sent because they name
    no topic of this installation. Records that are still not acceptable are refused again. Raises
    ``KafkaUnreachable`` if not all were acknowledged.
    """
    client = producer(settings, **{"message.timeout.ms": round(SEND_S * 1000), "log_level": 0})
    known = {name: topic(settings.topic_prefix, name) for name in TOPIC_NAMES - {"deadletter"}}
    # A letter may name its topic with or without the prefix.
    known |= {full: full for full in known.values()}
    foreign: list[Letter] = []

    def outgoing() -> Iterator[Outgoing]:
        for letter in letters:
            # A letter about an unreadable batch has no value to send.
            if letter.topic not in known or letter.reason == UNREADABLE:
                foreign.append(letter)
                continue
            # A letter that was replayed before has the header of the earlier replay: one is enough.
            headers = [(name, value) for name, value in letter.headers if name != REPLAYED]
            headers.append((REPLAYED, str(letter.offset).encode()))
            yield Outgoing(known[letter.topic], letter.key, letter.value, headers)

    return send_and_wait(client, outgoing(), SEND_S), foreign


def resume(settings: Settings, name: str, partition: int) -> None:
    """Let a halted partition skip as many records again, from the worker's next start on.

    ``name`` is the topic's name without prefix. Raises ``ValueError`` if no worker reads that
    topic, and ``KafkaUnreachable``.
    """
    if name not in LEDGER_TOPICS:
        raise ValueError(f"no worker reads {name}: one of {', '.join(sorted(LEDGER_TOPICS))}")
    note = PoisonLedger(name, partition, LEDGER_TOPICS[name]).resume_note()
    record = Outgoing(
        topic(settings.topic_prefix, note.topic), note.key, note.value, partition=partition
    )
    send_and_wait(producer(settings), [record], SEND_S)
