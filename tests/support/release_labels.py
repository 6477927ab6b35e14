"""Releases published and promoted by a worker's decider, without a worker process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException

from stepstream.common.kafka import KafkaUnreachable
from stepstream.releases.topic import publish, read_log, send_promotion
from stepstream.schemas.promotion import Promotion
from stepstream.schemas.release import Release
from stepstream.schemas.settings import Settings
from stepstream.stream.shell.release_decider import ReleaseDecider
from tests.support.processes import wait_until


def stepped(decider: ReleaseDecider) -> bool:
    """One step; on a busy machine brokers may answer too late, and the next one tries again."""
    try:
        return decider.step(0.1)
    except (KafkaException, KafkaUnreachable):
        return False


@contextmanager
def labelled(settings: Settings) -> Iterator[Callable[[Release | None, int], None]]:
    """Publishes and promotes, without a worker process."""
    decider = ReleaseDecider(settings, policies=list, is_owner=lambda: True)

    def promote(release: Release | None, expected: int) -> None:
        """Without a release: roll back."""
        if release is not None:
            publish(settings, release)
        one = Promotion(
            id=uuid.uuid4().hex,
            action="rollback" if release is None else "promote",
            agent="support",
            label="production",
            release="" if release is None else release.hash,
            expected=expected,
            by="ann",
            at=time.time_ns() // 1_000,
        )
        send_promotion(settings, one)
        wait_until(
            lambda: stepped(decider) and read_log(settings).decision(one), 60, "the decision"
        )

    yield promote
    decider.close()
