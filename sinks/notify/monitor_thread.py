"""The watch as a part of the notifier that holds the partition of our own alerts: looks, raises, resolves."""

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
    StallChange,
    alert_of,
    finding_of,
)
from stepstream.sinks.notify.pipeline_progress import Progress
from stepstream.sinks.notify.service import Notifier
from stepstream.sinks.notify.synthetic_runs import SyntheticRuns, synthetic_run

LONGEST_S: Final = 15.0
END_TO_END: Final = "end-to-end"
PARTS: Final = ("worker", "sink", END_TO_END)
FLUSH_S: Final = 2.0
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("stepstream.admin.notify")


class MonitorThread:
    """Looks at the pipeline in a thread of its own. What it finds is told like every alert."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        settings = notifier.settings
        self._every_s = min(LONGEST_S, settings.watch_after / 4e6)
        self._watch = PipelineMonitor(
            settings.watch_after, settings.watch_lag_share, round(self._every_s * 1e6)
        )
        self._probe = SyntheticRuns(settings.watch_after) if settings.synthetic_runs else None
        self._opened: dict[str, int] = {}
        self._adopted: PartitionDelivery | None = None
        self._number = -1
        self._stop = threading.Event()
        if self._probe is not None:
            notifier.seen.append(self._seen)
        self._thread = threading.Thread(target=self._run, name="stepstream-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        progress: Progress | None = None
        while not self._stop.wait(self._every_s):
            try:
                progress = progress or Progress(self._notifier.settings)
                if self._is_ours():
                    self._look(progress)
            except (kafka.KafkaUnreachable, KafkaException, TimeoutError) as error:
                _log.warning("the pipeline could not be looked at: %s", error)
            except Exception:
                _log.exception("the watch failed and goes on")
        if progress is not None:
            progress.close()

    def _is_ours(self) -> bool:
        """Whether this notifier is the one that watches: it holds the partition that our own alerts are on."""
        if self._number < 0:
            self._number = own_findings_partition(self._notifier.settings)
        return self._number >= 0 and self._notifier.call(
            lambda: self._number in self._notifier.partitions.cores
        )

    def _look(self, progress: Progress) -> None:
        readings = progress.read()
        core = self._notifier.call(lambda: self._notifier.partitions.cores.get(self._number))
        if core is not None and core is not self._adopted:
            self._opened = self._raised()
            self._watch.adopt(self._opened)
            self._adopted = core
        self._notifier.call(lambda: self._judge(readings))

    def _judge(self, readings: list[Any]) -> None:
        """In the notifier's main thread."""
        now_us = time.time_ns() // 1_000
        core = self._notifier.partitions.cores.get(self._number)
        if core is None or core is not self._adopted:
            return
        verdicts = self._watch.look(readings, now_us)
        if self._probe is not None:
            trouble = self._probe.trouble(now_us)
            if trouble is not None:
                verdicts += self._watch.troubled(END_TO_END, trouble)
            self._send_probe(now_us)
        for verdict in verdicts:
            self._say(core, verdict, now_us)
        for part in PARTS:
            self._notifier.figures.observer.gauge(m.NOTIFY_STALLED).labels(part).set(
                part in self._watch.stalled
            )

    def _raised(self) -> dict[str, int]:
        """What was raised before a restart and is not over: the part, and since when."""
        held = open_findings(self._notifier.settings, self._number)
        return {subject: finding.time for (rule, subject), finding in held.items() if rule == RULE}

    def _say(self, core: PartitionDelivery, verdict: StallChange, now_us: int) -> None:
        """Tell subscribers at once, since those who would make the alert may be the ones that are gone; and for the record."""
        opened_us = (
            self._opened.setdefault(verdict.part, now_us)
            if verdict.stalled
            else self._opened.pop(verdict.part, now_us)
        )
        finding = finding_of(verdict, now_us, opened_us)
        self._notifier.outbox.publish("findings", PROJECT, _encode(finding), self._number)
        self._notifier.outbox.flush(
            FLUSH_S
        )  # a notifier that is killed now must leave its end to the next one
        core.inform(alert_of(finding, opened_us), -1, now_us, now_us)
        (_log.error if verdict.stalled else _log.info)(
            "pipeline-stalled %s: %s", finding.state, finding.message
        )

    def _send_probe(self, now_us: int) -> None:
        trace_id = self._probe.due(now_us) if self._probe is not None else ""
        if trace_id:
            for value in synthetic_run(trace_id, now_us):
                self._notifier.outbox.publish("steps", trace_id, value)

    def _seen(self, _core: PartitionDelivery, alert: Any, _appended_us: int) -> None:
        if self._probe is not None and alert.agent == PROBE_AGENT:
            self._probe.came(alert.trace_id, time.time_ns() // 1_000)
