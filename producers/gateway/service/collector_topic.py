"""Reads the topic that an OpenTelemetry Collector's Kafka exporter writes, and writes steps.

A record is one export request, in protobuf or JSON, with any number of traces. Offsets are
committed once Kafka has acknowledged all steps of the records before them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Final

from confluent_kafka import KafkaException, Message

from stepstream.common import kafka
from stepstream.producers.gateway.mapping.mapper import Origin, Refused
from stepstream.producers.gateway.otlp.answers import JSON, PROTOBUF
from stepstream.producers.gateway.otlp.malformed import Malformed, TooMany
from stepstream.producers.gateway.service.ingest import Batch, Ingest
from stepstream.producers.gateway.service.kafka_writer import (
    KafkaWriter,
    Letter,
    NoRoom,
    NotAcknowledged,
    Record,
)
from stepstream.schemas.settings import Settings

AT_ONCE: Final = 50
"""Records between two commits."""
PART_RECORDS: Final = 50_000
"""Steps that are written at once; the producer's queue takes 200,000."""
POLL_S: Final = 0.5
RETRY_S: Final = 1.0
_log = logging.getLogger("stepstream.gateway")


class CollectorReader:
    """One member of the group ``<prefix>.gateway``, in a thread of its own."""

    def __init__(self, settings: Settings, topic: str, ingest: Ingest, writer: KafkaWriter) -> None:
        self._settings = settings
        self._topic = topic
        self._ingest = ingest
        self._writer = writer
        self._stopping = threading.Event()
        self.records = 0
        """Records whose offsets are committed."""
        self._thread = threading.Thread(target=self._run, name="gateway-collector", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the batch in progress."""
        self._stopping.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._follow())
            except (KafkaException, kafka.KafkaUnreachable) as error:
                _log.warning("reading %s failed, trying again: %s", self._topic, error)
                self._stopping.wait(RETRY_S)
            except Exception:
                _log.exception("reading %s failed, trying again", self._topic)
                self._stopping.wait(RETRY_S)

    async def _follow(self) -> None:
        group = f"{self._settings.topic_prefix}.gateway"
        consumer = kafka.consumer(self._settings, group)
        consumer.subscribe([self._topic])
        try:
            while not self._stopping.is_set():
                messages = consumer.consume(AT_ONCE, POLL_S)
                good = [message for message in messages if message.error() is None]
                if not good:
                    continue
                if not await self._write(self._batch(good)):
                    return  # stopped before it was acknowledged: read again by the next member
                # Only now: records that are not acknowledged are read again after a crash, and
                # steps that were written twice count once.
                consumer.commit(asynchronous=False)
                self.records += len(good)
        finally:
            consumer.close()

    async def _write(self, batch: Batch) -> bool:
        """Write until Kafka has acknowledged; False when ``close`` was called before that."""
        # In parts: all at once, many large records would never fit into the producer's queue.
        records = batch.records
        parts = [records[at : at + PART_RECORDS] for at in range(0, len(records), PART_RECORDS)]
        for part in parts:
            if not await self._write_part(part, []):
                return False
        return await self._write_part([], batch.letters)

    async def _write_part(self, records: list[Record], letters: list[Letter]) -> bool:
        while True:
            try:
                await self._writer.write(records, letters)
                return True
            except (NoRoom, NotAcknowledged) as error:
                _log.warning("steps from %s are not acknowledged, again: %s", self._topic, error)
                if self._stopping.wait(RETRY_S):
                    return False

    def _batch(self, messages: list[Message]) -> Batch:
        """The steps of some records; a record that is no export request goes to the dead letter."""
        whole = self._ingest.new_batch()
        origin = Origin(self._settings.project, time.time_ns() // 1_000)
        for message in messages:
            value = message.value() or b""
            form = JSON if value[:1] == b"{" else PROTOBUF
            try:
                # It yields the growing batch after each slice; only the last one is complete.
                for batch in self._ingest.traces(value, form, origin):
                    part = batch
            except (Malformed, TooMany) as error:
                reason = "malformed_json" if isinstance(error, Malformed) else "too_large"
                whole.refuse("record", Refused(reason, str(error)), value)
                continue
            whole.records += part.records
            whole.letters += part.letters
        return whole
