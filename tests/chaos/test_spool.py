"""Agents of one spool are killed while the broker stops and starts: nothing safe is lost, and every
run keeps its order.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstream.local.embedded.kafka import EmbeddedKafka
from tests.chaos.spool import Outcome, play


def run(folder: Path, agents: int, kills: int, most_s: float) -> Outcome:
    with EmbeddedKafka(folder / "kafka", heap_mb=384) as kafka:
        outcome = play(
            kafka,
            "spoolchaos",
            folder / "agents",
            agents=agents,
            kills=kills,
            seed=1,
            most_s=most_s,
        )
    print(outcome)
    assert outcome.problems() == []
    return outcome


@pytest.mark.timeout(600)
def test_nothing_safe_is_lost(tmp_path: Path) -> None:
    """A few agents, killed in two outages and between them."""
    run(tmp_path, agents=4, kills=15, most_s=240)


@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_nothing_safe_is_lost_for_long(tmp_path: Path) -> None:
    """Twenty agents on one file, a thousand kills, or as many as half an hour allows."""
    run(tmp_path, agents=20, kills=1_000, most_s=1_800)
