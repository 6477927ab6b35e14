"""The short form of the chaos suite; ``make chaos`` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from tests.chaos.harness import run
from tests.chaos.scenarios.short import SHORT


@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_or_blamed_on_anyone_under_faults(tmp_path: Path) -> None:
    """Workers, sinks, broker and store are killed and frozen under load: in the end every run,
    cost, finding and alert is

    exact, on the topics and in ClickHouse."""
    kafka = EmbeddedKafka(tmp_path / "kafka", nodes=SHORT.nodes, heap_mb=384)
    with kafka, EmbeddedClickHouse(tmp_path / "clickhouse") as store:
        report = run(SHORT, kafka, "chaos", tmp_path / "logs", store)
    # Shown by pytest where the test fails.
    print(report)
    assert not report.problems, "\n".join(report.problems[:30])
    # Without these a short run could pass because no fault had happened.
    assert report.faults["worker kills"] >= 5
    assert report.faults["broker kills"] >= 2
    assert report.faults["sink kills"] >= 2
    assert report.faults["store kills"] >= 1
