"""Counters of the gateway's metrics."""

from __future__ import annotations

from functools import lru_cache

from stepstream.common.observe import Observer
from stepstream.producers.gateway.service.ingest import Batch
from stepstream.schemas import metrics


class Counts:
    """Counters of one gateway."""

    def __init__(self, observer: Observer) -> None:
        # Looking up a counter by its labels takes as long as decoding a span.
        self._requests = lru_cache(64)(observer.counter(metrics.GATEWAY_REQUESTS).labels)
        self._items = lru_cache(64)(observer.counter(metrics.GATEWAY_ITEMS).labels)
        self._refused = observer.counter(metrics.GATEWAY_REFUSED)

    def answered(self, signal: str, status: int, batch: Batch | None = None) -> None:
        """Count one answer, and the items of ``batch``, which is None for a refused request."""
        self._requests(signal, str(status)).inc()
        if batch is None:
            return
        for outcome, count in (
            ("accepted", batch.taken),
            ("ignored", batch.ignored),
            ("rejected", batch.refused),
        ):
            if count:
                self._items(signal, outcome).inc(count)
        for reason, count in batch.reasons.items():
            self._refused.labels(reason).inc(count)
