"""The lists of the admin API: what they hold, and what asking a second time costs."""

from __future__ import annotations

import msgspec
import pytest

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify import latest_records
from stepstream.sinks.notify.latest_records import LatestRecords, RecordLists
from tests.support.notifier import Publisher, prepared


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """An installation of the test's own."""
    return prepared(kafka_bootstrap, topic_prefix)


def test_a_second_call_reads_what_is_new(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many alerts are kept, each record is decoded once; what is kept is bounded."""
    decoded: list[bytes] = []
    decode = msgspec.json.Decoder(AlertStruct).decode

    def counted(value: bytes) -> AlertStruct:
        decoded.append(value)
        return decode(value)

    alerts: LatestRecords[AlertStruct] = LatestRecords(
        settings,
        "alerts",
        counted,
        lambda one: one.alert_id,
        lambda one: one.seq,
        lambda one: one.updated_at,
    )
    publisher = Publisher(settings)
    for number in range(2_000):
        publisher.send(f"a{number}", partition=number % 2, updated_at=1_000_000 + number)
    publisher.flush()
    assert len(alerts.records()) == len(decoded) == 2_000
    assert len(alerts.records()) == len(decoded)
    publisher.send("a0", 2, state="resolved", updated_at=2_000_000)
    publisher.flush()
    assert {one.alert_id: one.state for one in alerts.records()}["a0"] == "resolved"
    # Decoding is what a list costs; it is counted instead of timed.
    assert len(decoded) == 2_001
    monkeypatch.setattr(latest_records, "MAX_RECORDS", 1_000)
    kept = {one.alert_id for one in alerts.records()}
    # A tenth is forgotten at once, so that not every further record starts a clean-up.
    assert len(kept) == 900
    assert {"a0", "a1999"} <= kept
    assert "a1" not in kept
    alerts.close()
    publisher.close()


def test_the_newest_come_first_and_no_more_than_asked_for(settings: Settings) -> None:
    """Matching, in one state, by the time of their last change."""
    publisher, listing = Publisher(settings), RecordLists(settings)
    for number in range(10):
        publisher.send(
            f"a{number}",
            severity="critical" if number % 2 else "info",
            updated_at=1_000_000 + number,
        )
    publisher.send("a9", 2, severity="critical", state="resolved", updated_at=1_000_020)
    publisher.flush()
    found = listing.alerts(AlertMatch(severity=("critical",)), state="firing", limit=3)
    assert [one.alert_id for one in found] == ["a7", "a5", "a3"]
    assert listing.alerts(AlertMatch(), limit=1)[0].state == "resolved"
    assert listing.deliveries() == []
    listing.close()
    publisher.close()
