"""Tasks under kills and freezes: none is lost, ends twice, or begins twice against its agent."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from stepstream.local.embedded.kafka import EmbeddedKafka
from tests.chaos.tasks import Scale, play


@pytest.mark.timeout(900)
def test_no_task_is_lost_or_ends_twice(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few tasks, and a few kills of one worker and two executors."""
    monkeypatch.setenv("TASK_LEDGER", "")
    outcome = play(
        kafka_bootstrap,
        topic_prefix,
        tmp_path,
        Scale(tasks=60, faults=3, workers=1),
        seed=4,
    )
    print(outcome)
    assert outcome.problems() == []


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_no_task_is_lost_or_ends_twice_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty thousand tasks, a hundred faults, three brokers."""
    monkeypatch.setenv("TASK_LEDGER", "")
    with EmbeddedKafka(tmp_path / "kafka", nodes=3, heap_mb=384) as kafka:

        def break_broker(chance: random.Random) -> None:
            node = chance.randrange(3)
            kafka.kill(node)
            time.sleep(chance.uniform(1.0, 6.0))
            kafka.restart(node)

        outcome = play(
            kafka.bootstrap,
            "taskchaos",
            tmp_path / "crew",
            Scale(tasks=20_000, faults=100, workers=3, executors=4),
            seed=1,
            break_broker=break_broker,
        )
    print(outcome)
    assert outcome.problems() == []
