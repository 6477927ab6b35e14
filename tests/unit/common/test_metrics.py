"""Metrics: declared once, served as declared, documented."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stepstream.common.observe import Observer, ObserverServer
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.schemas.metrics import LAG, METRICS, RECORDS, REJECTED, markdown
from stepstream.sinks.batching.observation import refresh
from stepstream.sinks.batching.stats import SinkStats
from tests.support.paths import DOCS

PAGE = DOCS / "metrics.md"


def test_names_follow_prometheus() -> None:
    """Counters end in _total, units are spelled out, nothing is declared twice."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"stepstream_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.meaning


def test_the_page_is_current() -> None:
    """After a change of metrics: python -m stepstream.schemas.metrics > docs/metrics.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_a_mirrored_counter_shows_the_total() -> None:
    """Totals counted elsewhere appear as they are, label by label, however often they are read."""
    observer = Observer()
    for total in (3, 3, 7):
        observer.mirror(RECORDS, total)
        observer.mirror(REJECTED, total, "empty")
    text = observer.text().decode()
    assert "stepstream_worker_records_total 7.0" in text
    assert 'stepstream_worker_rejected_total{reason="empty"} 7.0' in text


def test_a_sink_s_counts_are_shown() -> None:
    """Each count of a sink has a metric."""
    stats = SinkStats(replayed=2, retries=3, insert_s=1.5, lag={("steps", 1): 40})
    stats.read["steps"] = 10
    stats.skipped["steps", "duplicate"] = 4
    observer = Observer()
    refresh(observer, stats)
    text = observer.text().decode()
    assert 'stepstream_sink_records_total{topic="steps"} 10.0' in text
    assert 'stepstream_sink_skipped_total{reason="duplicate",topic="steps"} 4.0' in text
    assert 'stepstream_sink_lag_records{partition="1",topic="steps"} 40.0' in text
    assert "stepstream_sink_replayed_batches_total 2.0" in text


def test_health_and_readiness_are_distinct() -> None:
    """A process that starts is alive and not ready.

    A stuck one is neither; the body is a fixed text.
    """
    observer = Observer()
    observer.gauge(LAG).labels("steps", "0").set(5)
    server = ObserverServer(observer, host="127.0.0.1", port=0)
    base = f"http://127.0.0.1:{server.port}"
    try:
        assert b"stepstream_worker_lag_records" in urllib.request.urlopen(f"{base}/metrics").read()
        assert urllib.request.urlopen(f"{base}/healthz").status == 200
        with pytest.raises(urllib.error.HTTPError) as not_ready:
            urllib.request.urlopen(f"{base}/readyz")
        assert (not_ready.value.code, not_ready.value.read()) == (503, b"not ready\n")
        not_ready.value.close()
        observer.readiness = lambda: ""
        assert urllib.request.urlopen(f"{base}/readyz").read() == b"ok\n"
        # The text goes to the log: an answer without credentials has no details.
        observer.health = lambda: "stuck"
        with pytest.raises(urllib.error.HTTPError) as sick:
            urllib.request.urlopen(f"{base}/healthz")
        assert sick.value.code == 503
        sick.value.close()
    finally:
        server.close()


def _status(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_other_machines_need_credentials_for_metrics(tmp_path: Path) -> None:
    """With the scope read; health needs no credentials."""
    reader, secret = new_credential("prometheus", ["read"])
    sender, other = new_credential("sender", ["ingest"])
    save(tmp_path / "table.json", Credentials([reader, sender]))
    # Without a file no user has the scope, so other machines read nothing.
    for file, known in (("", 401), (str(tmp_path / "table.json"), 200)):
        server = ObserverServer(Observer(), host="0.0.0.0", port=0, credentials_file=file)
        try:
            for path, token, status in (
                ("/healthz", "", 200),
                ("/metrics", "", 401),
                ("/metrics", token_of("prometheus", secret), known),
                ("/metrics", token_of("sender", other), 403 if file else 401),
            ):
                assert _status(f"http://127.0.0.1:{server.port}{path}", token) == status
        finally:
            server.close()


def test_a_taken_port_is_named() -> None:
    """The error names the address and the setting."""
    first = ObserverServer(Observer(), host="127.0.0.1", port=0)
    try:
        with pytest.raises(
            OSError, match=rf"port {first.port} on 127\.0\.0\.1 is taken.*metrics_port"
        ):
            ObserverServer(Observer(), host="127.0.0.1", port=first.port)
    finally:
        first.close()
