"""The guardrails of policies, for agents whose endpoint is this gateway.

They are sent on the stream of commands, as events with a policy's key and its guardrails, or null
where it has none for the caller. All of them come between ``guardrails-begin`` and
``guardrails-end`` once they are known; then each change follows by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import msgspec

from stepstream.schemas.guardrails import UnreadableGuardrails, decode_guarded

MAX_POLICIES: Final = 1_000
_log = logging.getLogger("stepstream.gateway")
_encode = msgspec.json.Encoder().encode


class GuardrailRecord(NamedTuple):
    """A policy's guardrails as they are on the topic, and the projects that it is for."""

    project: str
    """Exact text, or a pattern."""
    value: bytes

    def is_for(self, projects: frozenset[str]) -> bool:
        """Whether runs of these projects may be matched; no projects: any."""
        return not projects or any(fnmatchcase(one, self.project) for one in projects)


Spread = Callable[[list[tuple[str, GuardrailRecord | None]]], None]
"""Called with the policies that changed."""


class GuardrailLog:
    """What is on the topic of guardrails. The listener's thread writes, the event loop reads."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread
        self._guard = threading.Lock()
        self._records: dict[str, GuardrailRecord] = {}
        self._next: dict[str, GuardrailRecord] = {}
        self._pending: set[int] = set()
        self._known = False

    def begin(self, partitions: Iterable[int]) -> None:
        self._pending = set(partitions)
        self._next = {}

    def missing(self) -> None:
        """An installation without the topic has no guardrails: streams get no events."""

    def record(self, key: str, value: bytes | None) -> None:
        if not value:
            self._next.pop(key, None)
        else:
            try:
                policy = decode_guarded(value)
            except UnreadableGuardrails as error:
                _log.warning("the guardrails of %s are not sent to agents: %s", key, error)
                return
            if key not in self._next and len(self._next) >= MAX_POLICIES:
                _log.warning(
                    "more than %s policies have guardrails; %s is left out", MAX_POLICIES, key
                )
                return
            self._next[key] = GuardrailRecord(policy.match.project, value)
        if not self._pending:
            self._publish()

    def ended(self, partition: int) -> None:
        if self._pending:
            self._pending.discard(partition)
            if not self._pending:
                self._publish()

    def _publish(self) -> None:
        with self._guard:
            before, self._records = self._records, dict(self._next)
            first, self._known = not self._known, True
        if first:
            # Streams that were opened before have got nothing yet.
            self._spread([(BEGIN, None), *self._records.items(), (END, None)])
            return
        names = [*self._records, *(name for name in before if name not in self._records)]
        changed = [
            (name, self._records.get(name))
            for name in names
            if before.get(name) != self._records.get(name)
        ]
        if changed:
            self._spread(changed)

    def events(self, projects: frozenset[str]) -> Iterator[bytes]:
        """The events with which a stream begins; none before the topic was read."""
        with self._guard:
            records, known = list(self._records.items()), self._known
        if not known:
            return
        yield guardrail_event(BEGIN, None, projects)
        for key, record in records:
            if record.is_for(projects):
                yield guardrail_event(key, record, projects)
        yield guardrail_event(END, None, projects)


BEGIN: Final = "guardrails-begin"
END: Final = "guardrails-end"


def guardrail_event(
    key: str, record: GuardrailRecord | None, projects: frozenset[str] = frozenset()
) -> bytes:
    """One server-sent event. A policy that is for other projects is sent as one without guardrails,
    because it may have been for these before.
    """
    if key in (BEGIN, END):
        return b"event: %s\ndata: {}\n\n" % key.encode()
    is_sent = record is not None and record.is_for(projects)
    value = msgspec.Raw(record.value if is_sent and record is not None else b"null")
    return b"event: guardrail\ndata: %s\n\n" % _encode((key, value))
