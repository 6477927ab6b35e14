"""Runs the pipeline monitor in a notifier: reads progress, reports stalls and their ends."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException

from stepstream.common import kafka
from stepstream.schemas import metrics as m
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.sinks.notify.open_findings import open_findings, own_findings_partition
from stepstream.sinks.notify.pipeline_monitor import (
    PROBE_AGENT,
    PROJECT,
    RULE,
    PipelineMonitor,
    ProgressReading,
    StallChange,
    alert_of,
    finding_of,
)
from stepstream.sinks.notify.pipeline_progress import PipelineProgress
from stepstream.sinks.notify.service import Notifier
from stepstream.sinks.notify.synthetic_runs import SyntheticRuns, synthetic_run

MAX_INTERVAL_S: Final = 15.0
END_TO_END: Final = "end-to-end"
PARTS: Final = ("worker", "sink", END_TO_END)
FLUSH_S: Final = 2.0
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("stepstream.admin.notify")


class MonitorThread:
    """Checks the pipeline from a thread of its own.

    Every notifier has one; the one that owns the partition of the project's own alerts is active.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        settings = notifier.settings
        self._interval_s = min(MAX_INTERVAL_S, settings.watch_after / 4e6)
        self._monitor = PipelineMonitor(
            settings.watch_after, settings.watch_lag_share, round(self._interval_s * 1e6)
        )
        self._synthetic = SyntheticRuns(settings.watch_after) if settings.synthetic_runs else None
        self._opened_us: dict[str, int] = {}
        self._adopted: PartitionDelivery | None = None
        self._partition = -1
        self._stop = threading.Event()
        if self._synthetic is not None:
            notifier.on_alert.append(self._on_alert)
        self._thread = threading.Thread(target=self._run, name="stepstream-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        progress: PipelineProgress | None = None
        while not self._stop.wait(self._interval_s):
            try:
                progress = progress or PipelineProgress(self._notifier.settings)
                if self._is_active():
                    self._check(progress)
            except (kafka.KafkaUnreachable, KafkaException, TimeoutError) as error:
                _log.warning("the progress of the pipeline could not be read: %s", error)
            except Exception:
                _log.exception("the pipeline monitor failed and continues")
        if progress is not None:
            progress.close()

    def _is_active(self) -> bool:
        if self._partition < 0:
            self._partition = own_findings_partition(self._notifier.settings)
        return self._partition >= 0 and self._notifier.call(
            lambda: self._partition in self._notifier.partitions.deliveries
        )

    def _check(self, progress: PipelineProgress) -> None:
        readings = progress.read()
        delivery = self._notifier.call(
            lambda: self._notifier.partitions.deliveries.get(self._partition)
        )
        if delivery is not None and delivery is not self._adopted:
            self._opened_us = self._open_stalls()
            self._monitor.adopt(self._opened_us)
            self._adopted = delivery
        self._notifier.call(lambda: self._apply(readings))

    def _open_stalls(self) -> dict[str, int]:
        """Stalls that another notifier reported and that are not over: component -> opened at."""
        findings = open_findings(self._notifier.settings, self._partition)
        return {subject: one.time for (rule, subject), one in findings.items() if rule == RULE}

    # The following run in the notifier's main thread.

    def _apply(self, readings: list[ProgressReading]) -> None:
        now_us = time.time_ns() // 1_000
        delivery = self._notifier.partitions.deliveries.get(self._partition)
        if delivery is None or delivery is not self._adopted:
            return  # revoked since the readings were taken
        changes = self._monitor.check(readings, now_us)
        if self._synthetic is not None:
            problem = self._synthetic.problem(now_us)
            if problem is not None:
                changes += self._monitor.set_stalled(END_TO_END, problem)
            self._send_synthetic_run(now_us)
        for change in changes:
            self._report(delivery, change, now_us)
        for part in PARTS:
            self._notifier.metrics.observer.gauge(m.NOTIFY_STALLED).labels(part).set(
                part in self._monitor.stalled
            )

    def _report(self, delivery: PartitionDelivery, change: StallChange, now_us: int) -> None:
        """Write the finding, and deliver its alert at once."""
        if change.stalled:
            opened_us = self._opened_us.setdefault(change.part, now_us)
        else:
            opened_us = self._opened_us.pop(change.part, now_us)
        finding = finding_of(change, now_us, opened_us)
        outbox = self._notifier.outbox
        outbox.publish("findings", PROJECT, _encode(finding), self._partition)
        # Before the delivery: if this notifier is killed now, its successor has to find the open
        # stall on the topic, to report its end.
        outbox.flush(FLUSH_S)
        delivery.add(alert_of(finding, opened_us), -1, now_us, now_us)
        (_log.error if change.stalled else _log.info)(
            "%s %s: %s", finding.alert, finding.state, finding.message
        )

    def _send_synthetic_run(self, now_us: int) -> None:
        trace_id = self._synthetic.due(now_us) if self._synthetic is not None else ""
        if trace_id:
            for value in synthetic_run(trace_id, now_us):
                self._notifier.outbox.publish("steps", trace_id, value)

    def _on_alert(self, _delivery: PartitionDelivery, alert: Any, _appended_us: int) -> None:
        if self._synthetic is not None and alert.agent == PROBE_AGENT:
            self._synthetic.arrived(alert.trace_id, time.time_ns() // 1_000)
