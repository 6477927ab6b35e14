"""``stepstream import``: history of other tools as steps, resumable, with original times.

What retention would refuse is counted before anything is sent. Ids are kept or derived, so a second
import only makes duplicates, which count once. Progress is written down after each acknowledged
part, so an import that was interrupted continues after it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from stepstream.common.kafka import KafkaUnreachable, producer
from stepstream.common.web.credentials import write_private
from stepstream.producers.gateway.importers.files import format_of, items_of, spans_of
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import options_of
from stepstream.producers.gateway.mapping.spans import Unreadable
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

AT_ONCE: Final = 500
"""Steps between two notes of the progress."""
SEND_S: Final = 60.0

_encode = msgspec.json.Encoder().encode


@dataclass
class Plan:
    """What a file holds, before anything of it is sent."""

    file: Path
    formats: Counter[str] = field(default_factory=Counter)
    """Items by format."""
    spans: int = 0
    steps: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Spans that would be refused, by reason."""
    example: str = ""
    """One refusal, in words."""
    done: int = 0
    """Steps that an earlier import of the same file has sent."""


class Import:
    """The import of one file."""

    def __init__(self, settings: Settings, file: Path, *, project: str, now_us: int) -> None:
        """Raises ``OSError`` where the file cannot be read."""
        self._settings = settings
        self._file = file
        self._data = file.read_bytes()
        self._start_ns = int(file.stat().st_mtime) * 1_000_000_000
        self._origin = Origin(project, now_us)
        self._mapper = Mapper(options_of(settings))
        digest = hashlib.sha256(self._data + project.encode()).hexdigest()[:32]
        self._note = Path(settings.state_dir) / "imports" / f"{digest}.json"

    def plan(self) -> Plan:
        """Read everything and send nothing. Raises ``ValueError`` for a file of no known format."""
        plan = Plan(self._file, done=self._done())
        for found in self._mapped(plan.formats):
            plan.spans += 1
            if isinstance(found, Refused):
                plan.refused[found.reason] += 1
                plan.example = plan.example or found.detail
            else:
                plan.steps += len(found)
        return plan

    def send(self, plan: Plan, progress: Callable[[int], None]) -> int:
        """Send what was not sent before; how many steps that were. ``progress`` gets the steps
        that are done.

        Raises ``KafkaUnreachable``; what was acknowledged until then is not sent again.
        """
        client = producer(self._settings)
        name = topic(self._settings.topic_prefix, "steps")
        failures: list[str] = []
        sent = 0
        for number, (key, value) in enumerate(self._records(), 1):
            if number <= plan.done:
                continue
            client.produce(
                name,
                value,
                key,
                on_delivery=lambda error, _message: (
                    failures.append(error.str()) if error is not None else None
                ),
            )
            sent += 1
            if sent % AT_ONCE == 0:
                self._acknowledged(client, failures, number, progress)
        self._acknowledged(client, failures, plan.done + sent, progress)
        return sent

    def forget(self) -> None:
        """Begin anew at the next import."""
        self._note.unlink(missing_ok=True)

    def _acknowledged(
        self, client: Any, failures: list[str], number: int, progress: Callable[[int], None]
    ) -> None:
        if client.flush(SEND_S) or failures:
            raise KafkaUnreachable(
                f"Kafka did not acknowledge: {failures[0] if failures else 'no broker answers'}; "
                "run the command again to continue"
            )
        write_private(self._note, json.dumps({"file": str(self._file), "steps": number}))
        progress(number)

    def _done(self) -> int:
        try:
            return int(json.loads(self._note.read_text())["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        for found in self._mapped(Counter()):
            if not isinstance(found, Refused):
                for step in found:
                    yield step.trace_id.encode(), _encode(step)

    def _mapped(self, formats: Counter[str]) -> Iterator[Any]:
        """Steps of each span, or why it is refused."""
        for item in items_of(self._data):
            formats[format_of(item)] += 1
            for span in spans_of(item, self._start_ns):
                if isinstance(span, Unreadable):
                    yield Refused("invalid_field", span.why)
                else:
                    yield self._mapper.steps(span, self._origin)


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000
