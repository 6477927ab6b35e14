"""Nothing that a gateway acknowledged is lost, whatever is killed: a short form, and a long one
for ``make chaos``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstream.local.embedded.kafka import EmbeddedKafka
from tests.chaos.gateway import Outcome, play


def run(folder: Path, seconds: float, seed: int) -> Outcome:
    with EmbeddedKafka(folder / "kafka", heap_mb=384) as kafka:
        outcome = play(kafka, "gatewaychaos", folder / "logs", seconds=seconds, seed=seed)
    print(outcome)
    assert outcome.missing == []
    assert outcome.acknowledged > 1_000
    assert outcome.wrong_contents == []
    assert 0 < outcome.to_amend <= outcome.amended
    assert outcome.exits == []
    assert not [answer for answer in outcome.answers if answer.startswith("unexpected")]
    return outcome


@pytest.mark.timeout(300)
def test_what_was_acknowledged_is_in_kafka(tmp_path: Path) -> None:
    """Gateways and the broker are killed and frozen under load, each at least once."""
    outcome = run(tmp_path, 5, 1)
    assert len(outcome.faults) == 5


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_what_was_acknowledged_is_in_kafka_for_long(tmp_path: Path) -> None:
    """The same for four minutes."""
    outcome = run(tmp_path, 240, 2)
    assert sum(outcome.faults.values()) > 40
