"""Metrics and health of a sink over HTTP."""

from __future__ import annotations

import logging

from stepstream.common import observe
from stepstream.common.observe import Observer, ObserverServer
from stepstream.schemas import metrics as m
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.stats import SinkStats

logger = logging.getLogger("stepstream.sink")


def serve(settings: Settings, stats: SinkStats) -> ObserverServer | None:
    """Serve the sink's metrics and health until the server is closed; None when the settings turn
    them off.
    """
    observer = Observer()
    observer.before_scrape(lambda: refresh(observer, stats))
    observer.readiness = lambda: "" if stats.lag or stats.read else "no partition is assigned yet"
    return observe.serve(observer, settings, logger)


def refresh(observer: Observer, stats: SinkStats) -> None:
    """Copy the counters into the metrics."""
    by_label = (
        (m.SINK_READ, stats.read),
        (m.SINK_INSERTED, stats.inserted),
        (m.SINK_DEAD_LETTERED, stats.dead_lettered),
        (m.SINK_BATCHES, stats.batches),
        (m.SINK_RULE_EVALUATIONS, stats.rule_evaluations),
        (m.SINK_RULE_ERRORS, stats.rule_errors),
    )
    for metric, counts in by_label:
        for label, count in list(counts.items()):
            observer.mirror(metric, count, label)
    for (topic, reason), count in list(stats.skipped.items()):
        observer.mirror(m.SINK_SKIPPED, count, topic, reason)
    observer.mirror(m.SINK_REPLAYED, stats.replayed)
    observer.mirror(m.SINK_RETRIES, stats.retries)
    observer.mirror(m.SINK_INSERT_SECONDS, stats.insert_s)
    for (topic, partition), lag in list(stats.lag.items()):
        observer.gauge(m.SINK_LAG).labels(topic, str(partition)).set(lag)
