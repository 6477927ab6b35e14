"""The guardrails in force for one tracer: read from the endpoint, or from disk until then."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stepstream.producers.forks import call_after_fork, fork_lock
from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.sdk_log import internal_error, sdk_log

if TYPE_CHECKING:
    from stepstream.producers.guardrails.cache import GuardrailCache
    from stepstream.schemas.guardrail_check import GuardrailBook
    from stepstream.schemas.guardrails import GuardedPolicy

MAX_POLICIES: Final = 1_000
"""Policies with guardrails that an agent reads; further ones are not in force, which is logged."""
UNLOGGED_WAIT_S: Final = 0.01
_PREFIX: Final = "policy/"


@dataclass(slots=True)
class GuardrailCounts:
    """What guardrails did in this process: calls by decision, and failures of the machinery."""

    refused: int = 0
    repaired: int = 0
    suspended: int = 0
    observed: int = 0
    failed: int = 0
    """Calls for which a guardrail could not be evaluated, and other errors of guardrails."""


@dataclass(slots=True)
class GuardrailStatus:
    """The guardrails in force in this process, and what they did."""

    policies: tuple[str, ...] = ()
    """Each as ``name@revision``."""
    guardrails: int = 0
    source: str = ""
    """``endpoint``, ``disk`` (the last known ones, until the endpoint is read), or empty."""
    counts: GuardrailCounts = field(default_factory=GuardrailCounts)


class Guardrails:
    """Which guardrails are in force. ``book`` is None without any.

    Records come in the listener's thread; steps read ``book``, which is replaced as a whole.
    """

    def __init__(self, cache: GuardrailCache | None = None) -> None:
        self.book: GuardrailBook | None = None
        self.counts = GuardrailCounts()
        self.source = ""
        self.loaded = threading.Event()
        """Set once the endpoint's guardrails are known."""
        self._cache = cache
        self._records: dict[str, GuardedPolicy] = {}
        self._before: dict[str, GuardedPolicy] = {}
        self._pending: set[int] = set()
        self._reading = False
        call_after_fork(self)

    def status(self) -> GuardrailStatus:
        book = self.book
        if book is None:
            return GuardrailStatus(source=self.source, counts=self.counts)
        names = tuple(f"{policy.name}@{policy.revision}" for policy in book.policies)
        return GuardrailStatus(names, book.count, self.source, self.counts)

    def load_cached(self) -> None:
        """Put the last known guardrails in force. Never raises."""
        if self._cache is None:
            return
        try:
            self._load_cached(self._cache)
        except Exception as error:
            internal_error("Guardrails.load_cached", error)

    def _load_cached(self, cache: GuardrailCache) -> None:
        with fork_lock.importing():
            from stepstream.producers.guardrails.cache import WrongCache
            from stepstream.schemas.guardrails import UnreadableGuardrails, decode_guarded
        try:
            records = cache.read()
            policies = [decode_guarded(record) for record in records or ()]
        except (WrongCache, UnreadableGuardrails) as error:
            sdk_log.log(
                "guardrail cache",
                f"stepstream: the last known guardrails in {cache.file} are ignored: {error}; "
                "steps are not guarded until the endpoint is read",
            )
            return
        if policies:
            self.put_in_force(policies, "disk")

    def wait(self, seconds: float) -> None:
        """Wait until the endpoint's guardrails are known, at most ``seconds``."""
        # The default is too short for any endpoint: it is no wish to wait.
        if not self.loaded.wait(seconds) and seconds > UNLOGGED_WAIT_S:
            sdk_log.log(
                "guardrail wait",
                f"stepstream: the guardrails at the endpoint were not read within {seconds:g} s; "
                f"{self._in_force()} until then",
            )

    def _in_force(self) -> str:
        return "the last known ones are in force" if self.book else "steps are not guarded"

    # --- records arrive: in the listener's thread ---

    def begin(self, partitions: Iterable[int]) -> None:
        """All records are read again; ``ended`` follows for each partition."""
        self._before = {} if self.book is None else {one.name: one for one in self.book.policies}
        self._records = {}
        self._pending = set(partitions)
        self._reading = True
        if not self._pending:
            self._reached_end()

    def missing(self) -> None:
        """The endpoint has no guardrails, because it is of an older release."""
        self.loaded.set()

    def record(self, key: str, value: bytes | None) -> None:
        """Take one record: a policy's guardrails, or None where it has none any more."""
        name = key.removeprefix(_PREFIX)
        if not value:
            self._records.pop(name, None)
        else:
            self._take(name, value)
        if not self._reading:
            self._publish()

    def _take(self, name: str, value: bytes) -> None:
        with fork_lock.importing():
            from stepstream.schemas.guardrails import UnreadableGuardrails, decode_guarded
        try:
            policy = decode_guarded(value)
        except UnreadableGuardrails as error:
            # What was in force before stays: a newer release may have written it.
            if name in self._before:
                self._records.setdefault(name, self._before[name])
            self.counts.failed += 1
            sdk_log.log(
                f"guardrails {name}",
                f"stepstream: the guardrails of policy {name} cannot be used: {error}; "
                "its earlier ones stay in force",
            )
            return
        if name not in self._records and len(self._records) >= MAX_POLICIES:
            sdk_log.log(
                "guardrail limit",
                f"stepstream: more than {MAX_POLICIES:,} policies have guardrails; those of "
                f"policy {name} are not in force",
            )
            return
        self._records[name] = policy

    def ended(self, partition: int) -> None:
        """The end of a partition was reached."""
        if self._reading:
            self._pending.discard(partition)
            if not self._pending:
                self._reached_end()

    def _reached_end(self) -> None:
        self._reading = False
        self._publish()
        self.loaded.set()

    def _publish(self) -> None:
        self.put_in_force(self._records.values(), "endpoint")
        try:
            self._store()
        except Exception as error:  # a full disk, a folder without rights
            sdk_log.log(
                "guardrail store",
                f"stepstream: the guardrails are not kept on disk: {error}; an agent that starts "
                "without its endpoint has older ones or none",
            )

    def _store(self) -> None:
        if self._cache is None:
            return
        with fork_lock.importing():
            from stepstream.schemas.guardrails import encode_guarded
        if self._records:
            self._cache.write([encode_guarded(one) for one in self._records.values()])
        else:
            # Guardrails that were withdrawn must not come back with the next start.
            self._cache.remove()

    def put_in_force(self, policies: Iterable[GuardedPolicy], source: str) -> None:
        """Replace what is in force. ``source`` is ``endpoint`` or ``disk``."""
        with fork_lock.importing():
            from stepstream.schemas.guardrail_check import GuardrailBook

            # What steps need from now on: none of them waits for its import.
            importlib.import_module("stepstream.producers.guardrails.enforce")
        book = GuardrailBook(policies)
        self.source = source
        self.book = book if book.count else None
        if self.book is not None:
            guarding.is_on = True

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an error of the guardrails themselves."""
        self.counts.failed += 1
        internal_error(where, error)

    def after_fork(self) -> None:
        """Read again in the child; what is known stays in force."""
        self.loaded = threading.Event()
