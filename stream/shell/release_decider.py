"""Decides about promotions, in the order in which the commands stand on the topic ``releases``.

One worker does it: the one that has the first partition of the findings. A decision, the labels
after it and the deletion of its command are one transaction, so after a crash all of them are on
the topic or none. The transactional id is the same for all workers: a worker that begins makes
Kafka refuse every later record of the one before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from confluent_kafka import KafkaException, Message, Producer

from stepstream.common.kafka import (
    BadBatch,
    Follower,
    KafkaUnreachable,
    producer,
    read_to_end,
    words,
)
from stepstream.common.letters import Unreadable
from stepstream.common.release_topic import (
    READ_S,
    ConsumedMessage,
    apply_messages,
    read_releases,
    release_topic,
)
from stepstream.schemas import release_log
from stepstream.schemas.config_drift import Configured
from stepstream.schemas.policy import Policy
from stepstream.schemas.promotion import Decision, Promotion, decide, head_after, required_gates
from stepstream.schemas.release_log import IN_A_WORKER, ReleaseLog, UnreadableRelease
from stepstream.schemas.settings import Settings

TRANSACTION_S: Final = 30.0
"""After this time Kafka gives up a transaction whose worker was killed and not replaced."""
INIT_S: Final = 30.0
POLL_S: Final = 0.5
PAUSE_S: Final = 1.0
APPLIED_HERE: Final = 1 << 62
"""The offset of decisions that are applied before they come back from the topic."""
MAX_DECIDED: Final = 500
"""Commands that are decided in one transaction; the others wait for the next one."""
MAX_REFUSED: Final = 100
"""Unreadable records in memory until the worker that owns the decisions reports them. If there are
more, that worker reads the topic again."""
NO_TOPIC_S: Final = 10.0
"""Pause between two checks for the topic, in an installation that has none yet."""
_HEADERS: Final[Any] = [("content-type", b"application/json")]

log = logging.getLogger("stepstream.worker")


class ReleaseDecider:
    """Follows the topic, and decides while ``is_owner`` returns True."""

    def __init__(
        self,
        settings: Settings,
        *,
        policies: Callable[[], Iterable[Policy]],
        is_owner: Callable[[], bool],
        unreadable: Callable[[Sequence[Unreadable]], object] = lambda _records: None,
        passed: Callable[[BadBatch], None] = lambda _batch: None,
    ) -> None:
        """``policies`` returns those in force. ``unreadable`` is called with records
        that cannot be read, by the worker that owns the decisions.
        """
        self._settings = settings
        self._topic = release_topic(settings)
        self._policies = policies
        self._is_owner = is_owner
        self._unreadable = unreadable
        self._follower = Follower(settings, self._topic, passed)
        self._log = _new_log()
        self._refused: list[Unreadable] = []
        self._has_more_refused = False
        self._is_stale = False
        self._producer: Producer | None = None

    async def run(self) -> None:
        """Follow and decide until cancelled; while no broker answers, try again."""
        while True:
            try:
                is_followed = await asyncio.to_thread(self.step)
            except (KafkaException, KafkaUnreachable) as error:
                # Also the answer to a worker that was replaced: its next transaction begins anew.
                log.warning("deciding about releases: %s; trying again", words(error))
                await asyncio.sleep(PAUSE_S)
                continue
            if not is_followed:
                await asyncio.sleep(NO_TOPIC_S)

    def step(self, timeout_s: float = POLL_S) -> bool:
        """Read what is new and decide about it; returns whether the topic exists.

        Raises ``KafkaException`` and ``KafkaUnreachable``; nothing is half done then.
        """
        if self._is_stale:
            self._log = read_releases(self._settings, _new_log())
            self._is_stale = False
        apply_messages(self._log, self._follower.poll(timeout_s), self._refuse)
        if not self._is_owner():
            # What another worker decides from now on is not known to this producer.
            self._producer = None
            return self._follower.exists
        if self._log.pending():
            self._decide_pending()
        # Every worker reads the topic; one of them writes to the dead letter. At its start none of
        # them is the owner yet, so the records wait.
        if self._refused:
            self._report_refused()
        return self._follower.exists

    def read_all(self) -> None:
        """Read the topic to its end, before the first step. Raises ``KafkaUnreachable``."""
        apply_messages(self._log, self._follower.read_all(), self._refuse)

    # The partitions' thread calls these two while a step is under way in another one: each is one
    # look-up in a dictionary.

    def has_releases(self, agent: str) -> bool:
        """Whether the agent has releases."""
        return self._log.has_releases(agent)

    def configured(self, agent: str, release: str) -> Configured | None:
        """What runs with a release are compared with."""
        return self._log.configured(agent, release)

    def close(self) -> None:
        """Stop following; waits for a step in another thread."""
        self._follower.close()

    def _refuse(self, message: ConsumedMessage, error: UnreadableRelease) -> None:
        log.error("%s", error)
        if len(self._refused) < MAX_REFUSED:
            self._refused.append(_unreadable(message, error))
        else:
            self._has_more_refused = True

    def _report_refused(self) -> None:
        # What was reported before is recognised by the letters of the dead letter.
        self._unreadable(self._refused)
        if self._has_more_refused:
            self._report_all()
        self._refused, self._has_more_refused = [], False

    def _report_all(self) -> None:
        """Read the topic again, and report every record that cannot be read."""
        found: list[Unreadable] = []

        def refuse(message: ConsumedMessage, error: UnreadableRelease) -> None:
            found.append(_unreadable(message, error))
            if len(found) == MAX_REFUSED:
                self._unreadable(found)
                found.clear()

        messages = read_to_end(self._settings, self._topic, timeout=READ_S)
        apply_messages(_new_log(), messages, refuse)
        if found:
            self._unreadable(found)

    # -- deciding --

    def _decide_pending(self) -> None:
        if self._producer is None:
            self._producer = self._take_over()
        decided = []
        try:
            self._producer.begin_transaction()
            for _, promotion in self._log.pending()[:MAX_DECIDED]:
                decided.append(self._decide(self._producer, promotion))
            if decided:
                self._producer.commit_transaction(TRANSACTION_S)
            else:  # the worker before this one has decided about all of them
                self._producer.abort_transaction(TRANSACTION_S)
        except KafkaException:
            # Whether it was committed is unknown, and decisions are applied here that may not be on
            # the topic: a new producer ends the transaction, and the topic is read again.
            self._producer, self._is_stale = None, True
            raise
        for decision in decided:
            _report(decision)

    def _take_over(self) -> Producer:
        """A producer, after every other worker's is refused, and the topic as it is since then."""
        made = producer(
            self._settings,
            **{
                "transactional.id": f"{self._topic}.decider",
                "transaction.timeout.ms": round(TRANSACTION_S * 1000),
                "log_level": 0,
            },
        )
        made.init_transactions(INIT_S)
        self._log = read_releases(self._settings, _new_log())
        return made

    def _decide(self, client: Producer, promotion: Promotion) -> Decision:
        """Decide, and apply the decision here at once: the next command is decided after it."""
        releases = self._log.releases(promotion.agent)
        known = {one.release.hash: one.release.version for one in releases}
        version = known.get(promotion.release, promotion.version)
        gates = required_gates(self._policies(), promotion.agent, version, promotion.label)
        head = self._log.head(promotion.agent)
        decision = decide(promotion, head, known, gates, time.time_ns() // 1_000)
        records = [
            (release_log.decision_key(promotion), decision.model_dump_json().encode()),
            (
                release_log.head_key(promotion.agent),
                head_after(head, decision).model_dump_json().encode(),
            ),
            (release_log.promotion_key(promotion), None),
        ]
        for key, value in records:
            client.produce(self._topic, value, key.encode(), headers=_HEADERS)
            self._log.apply(key, value, APPLIED_HERE)
        return decision


def _unreadable(message: ConsumedMessage, error: UnreadableRelease) -> Unreadable:
    return Unreadable(release_log.TOPIC, cast(Message, message), str(error))


def _new_log() -> ReleaseLog:
    # Decisions need hashes and versions; the prompts of all releases would fill the memory.
    return ReleaseLog(IN_A_WORKER)


def _report(decision: Decision) -> None:
    promotion = decision.promotion
    log.info(
        "%s of %s to %s by %s: %s%s",
        promotion.action,
        promotion.agent,
        promotion.label,
        promotion.by,
        decision.outcome,
        f": {decision.why}" if decision.why else f", {decision.version}",
    )
