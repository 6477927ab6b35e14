"""What a tracer needs once it records: settings, clock, encoder and sender, put together in one place.

What the agent's threads need is imported here, before the first step is handed over; what only the sender's thread needs is
imported there. Both happen under the gate that a fork waits for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepstream.producers import tool_arguments  # noqa: F401
from stepstream.producers.clock import Clock
from stepstream.producers.control import control_steps  # noqa: F401
from stepstream.producers.control import factory as run_control  # noqa: F401
from stepstream.producers.control.commands import Commands
from stepstream.producers.control.listener import CommandListener
from stepstream.producers.error_guard import internal_error
from stepstream.producers.exit_summary import Totals
from stepstream.producers.forks import gate
from stepstream.producers.responses import reader as responses  # noqa: F401
from stepstream.producers.responses import streamed as response_streams  # noqa: F401
from stepstream.producers.transport.background_sender import BackgroundSender
from stepstream.producers.transport.base import Record, Transport
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.transport.encoder import Encoder
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
        self._made_prices: PriceBook | None = None
        self._listener: CommandListener | None = None
        self.commands = Commands()
        self.sender = BackgroundSender(
            self._encode,
            self._connect,
            max_events=settings.queue_events,
            max_bytes=settings.queue_bytes,
            also_held=self._held_by_encoder,
            on_fork=self._forked,
        )

    def listen(self) -> None:
        """Follow the control topic, from the first run on. Only where there is Kafka, and never in the agent's way."""
        if self._listener is None and self._transport is None and self.settings.control:
            self._listener = CommandListener(self.settings, self.commands)
        if self._listener is not None:
            self._listener.ensure()

    def stop_listening(self, *, at_exit: bool = False) -> None:
        """Let go of the control topic; a later run listens again."""
        if self._listener is not None:
            self._listener.close(*((0.0,) if at_exit else ()))

    def cost_of(self, record: StepRecord) -> int | None:
        """Nano-dollars that an ended step cost, for budgets; None where that is unknown, 0 where it used nothing."""
        if record.cost_usd is not None:
            return nanos_from_usd(record.cost_usd)
        cost = self._price_book().cost(record, None)
        return None if cost.source == "unpriced" else cost.nanos or 0

    def load_prices(self) -> None:
        """Load the prices in a thread of their own, so that they are there when a budget asks for them. Returns at once."""
        if self._made_prices is None:
            with contextlib.suppress(RuntimeError):  # the interpreter is going down
                threading.Thread(
                    target=self._load_prices, name="stepstream-prices", daemon=True
                ).start()

    def publish(self, record: StepRecord) -> None:
        """Hand a record over; whoever hands it over does not touch it again."""
        self.sender.enqueue(record)

    # What follows is imported and made in the sender's thread, where it keeps no agent waiting.

    def _encode(self, record: StepRecord) -> Record:
        if self._encoder is None:
            self._encoder = self._made_encoder()
        return self._encoder(record)

    def _made_encoder(self) -> Encoder:
        with gate.importing():
            from stepstream.producers.transport.encoder import MOST_OPEN_INPUT_BYTES, Encoder
            from stepstream.producers.transport.redactor import Redactor
        return Encoder(
            Redactor(self._redact),
            self._price_book,
            self.settings.max_content_bytes,
            self._totals,
            max_held_bytes=min(MOST_OPEN_INPUT_BYTES, self.settings.queue_bytes // 4),
        )

    def _held_by_encoder(self) -> int:
        return 0 if self._encoder is None else self._encoder.held_bytes

    def _connect(self) -> Transport:
        if self._transport is not None:
            return self._transport
        with gate.importing():
            from stepstream.producers.transport.kafka import KafkaTransport
        return KafkaTransport(self.settings)

    def _price_book(self) -> PriceBook:
        with gate.importing():  # which also keeps two threads from making it twice
            if self._made_prices is None:
                from stepstream.schemas.prices import PriceBook

                importlib.import_module("genai_prices.data")
                self._made_prices = PriceBook(self._prices)
            return self._made_prices

    def _load_prices(self) -> None:
        try:
            self._price_book()
        except Exception as error:
            internal_error("prices", error)

    def _forked(self) -> None:
        """In the child: what the parent's sender was in the middle of is not gone on with."""
        self._encoder = None
        self._totals.reset()


def program_name() -> str:
    """What the running program is called: its file, or the package it was started from."""
    path = Path(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else None
    if path is None:
        return "python"
    return path.parent.name if path.stem == "__main__" else path.stem or "python"
