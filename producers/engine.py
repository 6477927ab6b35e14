"""What a tracer needs once it records: settings, clock, encoder and publisher, put together in one place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepstream.producers.clock import Clock
from stepstream.producers.exitline import Totals
from stepstream.producers.publisher import Publisher
from stepstream.producers.transport import Record, Transport
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.encoder import Encoder
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.prices import PriceBook
    from stepstream.schemas.settings import Settings


class Engine:
    """Settings in force, and the way from a step to the outside."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        totals: Totals,
        *,
        transport: Transport | None = None,
        redact: Callable[[str], str] | None = None,
        prices: Sequence[Prices] = (),
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.whose = {
            "project": settings.project or "default",
            "environment": settings.environment,
            "agent": settings.agent or program_name(),
            "agent_version": settings.agent_version,
        }
        self._totals = totals
        self._prices = tuple(prices)
        self._redact = redact
        self._transport = transport
        self._encoder: Encoder | None = None
        self.publisher = Publisher(
            self._encode,
            self._connect,
            max_events=settings.queue_events,
            max_bytes=settings.queue_bytes,
            on_fork=totals.reset,
        )

    def publish(self, record: StepRecord) -> None:
        """Hand a record over; whoever hands it over does not touch it again."""
        self.publisher.enqueue(record)

    # What follows is imported and made in the publisher's thread, where it keeps no agent waiting.

    def _encode(self, record: StepRecord) -> Record:
        if self._encoder is None:
            from stepstream.producers.encoder import Encoder
            from stepstream.producers.redact import Redactor

            self._encoder = Encoder(Redactor(self._redact), self._price_book, self.settings.max_content_bytes, self._totals)
        return self._encoder(record)

    def _connect(self) -> Transport:
        if self._transport is not None:
            return self._transport
        from stepstream.producers.kafka_transport import KafkaTransport

        return KafkaTransport(self.settings)

    def _price_book(self) -> PriceBook:
        from stepstream.schemas.prices import PriceBook

        return PriceBook(self._prices)


def program_name() -> str:
    """What the running program is called: its file, or the package it was started from."""
    path = Path(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else None
    if path is None:
        return "python"
    return path.parent.name if path.stem == "__main__" else path.stem or "python"
