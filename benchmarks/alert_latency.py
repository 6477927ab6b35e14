"""From an event being produced to a subscriber holding the alert, and to the agent being stopped.

The whole pipeline as ``stepstream up`` runs it, under no other load, a light one, half and nine
tenths of its maximum, which is the steady load that it keeps up with. Small runs are sent next to
the load; the last event of each is the one that makes a loop. Measured from the moment that it is
handed to the producer to the moment that a subscriber holds the alert: a Python iterator, a stream
of server-sent events, a webhook.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final

from benchmarks import harness, listeners
from benchmarks.bench import scratch_folder, steps_topic
from benchmarks.child import Child, ChildFailed
from benchmarks.harness import Goal, Report, percentile
from benchmarks.load import LoadSpec, Truth
from benchmarks.sender import Sender
from benchmarks.stored import EVENTS, STEPS, wait_reached
from stepstream.admin import documents, notify
from stepstream.admin.yamlfile import Place
from stepstream.common.kafka import producer, read_to_end
from stepstream.common.settings import load, to_environment
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.documents import DOCUMENT, Subscription
from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect

AGENT: Final = "latency-probe"
STOPPED: Final = "stopped-agent"
LIGHT_EVENTS_PER_S: Final = 200
PROBES_PER_S: Final = 8.0
STOPS_PER_S: Final = 1.5
# How long before its last event a probe's run begins.
FIRST_S: Final = 0.3
WARM_S: Final = 4.0
SETTLE_S: Final = 5.0
FULL_EVENTS: Final = 300_000
TRIALS: Final = 4
TRIAL_S: Final = 16.0
# A second for a growing trajectory, as much for the sink, and as much again.
KEPT_UP_S: Final = 3.5
# The store merges for a while what came in at the maximum.
MERGES_S: Final = 20.0
SHARES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}
GOALS: Final = {
    ("subscriber", "p50"): 60.0,
    ("subscriber", "p99"): 250.0,
    ("stopped agent", "p99"): 400.0,
}
POLICY: Final = {
    "kind": "Policy", "name": "stop-loops", "match": {"agent": STOPPED}, "mode": "enforce",
    "rules": [{"rule": "loop", "action": "stop"}],
}  # fmt: skip


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Start everything, find the maximum (unless it is given), then measure at each load."""
    with scratch_folder() as folder, ExitStack() as stack:
        settings = load(
            environ={}, file=Path(os.devnull), state_dir=str(folder), data_dir=str(folder / "data")
        )
        settings = settings.model_copy(update={"notify_allow_private": True, "incident_runs": 0})
        pipeline = stack.enter_context(
            Pipeline(settings, report=lambda who, line: report.progress(f"{who}: {line}"))
        )
        sender = stack.enter_context(Sender(pipeline.settings.kafka_brokers))
        bench = Bench(report, pipeline, sender, stack, arguments.seed)
        most = arguments.maximum or bench.maximum(50_000 if report.quick else FULL_EVENTS)
        seconds = 6.0 if report.quick else arguments.seconds
        loads = {"no": 0.0, "light": LIGHT_EVENTS_PER_S}
        if most:
            loads |= {"half": most / 2, "nine tenths": 0.9 * most}
        else:
            bench.not_measured("half")
        for label, rate in loads.items():
            if label in arguments.loads:
                bench.at(label, rate, seconds)
        bench.show()


class Bench:
    """The pipeline, its subscribers and the agent that is stopped."""

    def __init__(
        self, report: Report, pipeline: Pipeline, sender: Sender, stack: ExitStack, seed: int
    ) -> None:
        self.report = report
        self.settings = pipeline.settings
        self.sender = sender
        self.seed = seed
        self.rows: list[tuple[Any, ...]] = []
        self.sent = Truth()
        url, hooked = stack.enter_context(listeners.webhook())
        token = pipeline.settings.notify_token.get_secret_value()
        notify.add(
            self.settings,
            Subscription(name="bench", match={"agent": AGENT}, to={"webhook": {"url": url}}),
        )
        policy = documents.Written(DOCUMENT.validate_python(POLICY), Place(Path("bench"), 0))
        documents.apply(self.settings, [policy])
        self.subscribers: Mapping[str, listeners.ReceivedAt] = {
            "Python iterator": stack.enter_context(listeners.iterator(self.settings, AGENT)),
            "server-sent events": stack.enter_context(
                listeners.stream(pipeline.admin_url, token, AGENT)
            ),
            "webhook": hooked,
        }
        environment = {
            **to_environment(self.settings),
            "STEPSTREAM_AGENT": STOPPED,
            "STEPSTREAM_QUIET": "true",
        }
        self.agent = stack.enter_context(
            Child.module("benchmarks.stopped_agent", environment=environment)
        )
        self.probe = Probe(steps_topic(self.settings), producer(self.settings, **{"linger.ms": 0}))
        time.sleep(2.0)  # documents reach worker and notifier
        self.agent.ask(60, do="stops", count=2)

    def maximum(self, events: int) -> float:
        """Events a second that the pipeline keeps up with; 0 when it kept up with no rate tried.

        It keeps up when the last row is in the store and the last event in a trajectory soon after
        the end. The rate at which it reads a backlog is higher, because batches are larger then; it
        bounds the search from above.
        """
        most = self._backlog(events)
        self.report.figures["backlog_events_per_s"] = most
        least, seconds = 0.0, TRIAL_S if events >= FULL_EVENTS else TRIAL_S / 4
        for _ in range(TRIALS):
            rate = (least + most) / 2
            kept_up = self._keeps_up(rate, seconds)
            self.report.progress(f"{rate:,.0f} events/s: {'kept up' if kept_up else 'too many'}")
            least, most = (rate, most) if kept_up else (least, rate)
        self.report.figures["maximum_events_per_s"] = least
        time.sleep(MERGES_S)
        return least

    def _backlog(self, events: int) -> float:
        truth = self.sender.load(
            LoadSpec(events=events, seed=self.seed, start_us=int(time.time() * 1e6)).at_rate(40_000)
        )
        began_s: float = self.sender.send(steps_topic(self.settings))["began_s"]
        self.sent += truth
        self._wait_stored()
        return truth.events / (time.monotonic() - began_s)

    def _keeps_up(self, rate: float, seconds: float) -> bool:
        """Whether the last of a steady load is where it belongs soon after it was sent."""
        spec = LoadSpec(
            events=int(rate * seconds), seed=self.seed + int(rate), start_us=int(time.time() * 1e6)
        )
        truth = self.sender.load(spec.at_rate(rate))
        ended_s: float = self.sender.send(steps_topic(self.settings), rate=rate)["ended_s"]
        self.sent += truth
        self._wait_stored()
        return time.monotonic() <= ended_s + KEPT_UP_S

    def _wait_stored(self) -> None:
        """Until all that was sent is in the store and in trajectories there."""
        with connect(self.settings) as client:
            wait_reached(client, STEPS, self.sent.steps)
            wait_reached(client, EVENTS, self.sent.events)

    def at(self, label: str, rate: float, seconds: float) -> None:
        """Probe for so long, next to a load."""
        self.report.progress(f"{label} load: {rate:,.0f} events/s")
        if rate:
            events = int(rate * (seconds + WARM_S + 1))
            spec = LoadSpec(
                events=events,
                seed=self.seed + int(rate),
                start_us=int(time.time() * 1e6),
                under_way=True,
            )
            self.sender.load(spec.at_rate(rate))
            self.sender.start(steps_topic(self.settings), rate=rate)
            time.sleep(WARM_S)
        self.agent.send(do="stops", count=max(3, int(seconds * STOPS_PER_S)))
        sent = self.probe.run(seconds)
        stopped = self.agent.wait(120)["took"]
        if rate:
            self.sender.finish()
        time.sleep(SETTLE_S)
        for name, found in self.subscribers.items():
            took = [(found[trace] - at) * 1000 for trace, at in sent.items() if trace in found]
            self._row(label, rate, name, took, len(sent) - len(took))
        for name in ("findings", "alerts"):
            created = self._created(name)
            took = [(created[trace] - at) * 1000 for trace, at in sent.items() if trace in created]
            self._row(label, rate, f"(of it: written to {name})", took, 0)
        took = [one * 1000 for one in stopped if one is not None]
        self._row(label, rate, "stopped agent", took, len(stopped) - len(took))

    def _created(self, name: str) -> dict[str, float]:
        """When the first record about each run was made, by trace_id."""
        found: dict[str, float] = {}
        for message in read_to_end(self.settings, topic(self.settings.topic_prefix, name)):
            record = json.loads(message.value() or b"{}")
            if record.get("agent") == AGENT:
                found.setdefault(record["trace_id"], message.timestamp()[1] / 1000)
        return found

    def _row(self, label: str, rate: float, name: str, took_ms: list[float], missing: int) -> None:
        values = (
            {share: percentile(took_ms, part) for share, part in SHARES.items()} if took_ms else {}
        )
        self.rows.append(
            (label, rate, name, *(values.get(share) for share in SHARES), len(took_ms))
        )
        for share, value in values.items():
            self.report.figures[
                f"{name}_{label}_{share}_ms".replace(" ", "_").replace("-", "_")
            ] = value
        if missing:
            self.report.wrong.append(
                f"{missing} of {missing + len(took_ms)} alerts never came at {label} load: {name}"
            )
        if label == "half" and not name.startswith("("):
            self._goals(label, name, values)

    def not_measured(self, label: str) -> None:
        """Note that no steady rate was found, so that the goals at this load count as not met."""
        self.report.notes.append(
            "no steady rate was found that the pipeline keeps up with: "
            f"{label} load was not measured"
        )
        for name in (*self.subscribers, "stopped agent"):
            self._goals(label, name, {})

    def _goals(self, label: str, name: str, values: Mapping[str, float]) -> None:
        kind = "stopped agent" if name == "stopped agent" else "subscriber"
        for (goal_kind, share), goal in GOALS.items():
            if goal_kind == kind:
                what = f"event to {name}, {share} at {label} load"
                self.report.goals.append(Goal(what, values.get(share), goal, "ms"))

    def show(self) -> None:
        """Print what was measured."""
        columns = ("load", "events/s", "who", "p50 ms", "p99 ms", "max ms", "alerts")
        self.report.table("from the event to the alert", columns, self.rows)


class Probe:
    """Sends small runs whose last event makes a loop."""

    def __init__(self, topic: str, client: Any) -> None:
        self._topic = topic
        self._client = client
        self._random = random.Random(1)

    def run(self, seconds: float) -> dict[str, float]:
        """When the event that matters was handed to the producer, by trace_id."""
        sent: dict[str, float] = {}
        plan: list[tuple[float, int, str, str]] = []
        began, probes = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds + 2 or plan:
            while probes < (min(now - began, seconds)) * PROBES_PER_S:
                probes += 1
                trace_id, root = new_trace_id(), new_step_id()
                self._open(trace_id, root)
                heappush(plan, (now + FIRST_S + self._random.random() * 0.1, 1, trace_id, root))
            while plan and plan[0][0] <= now:
                _, step, trace_id, root = heappop(plan)
                if step == 1:
                    value = self._call(trace_id, root)
                    sent[trace_id] = time.time()
                    self._send(trace_id, value)
                    heappush(plan, (now + 1.0, 2, trace_id, root))
                else:
                    self._send(trace_id, self._event(trace_id, root, "", "agent", "end"))
            self._client.poll(0)
            time.sleep(0.001)
        self._client.flush(10)
        return sent

    def _open(self, trace_id: str, root: str) -> None:
        self._send(trace_id, self._event(trace_id, root, "", "agent", "start"))
        for _ in range(3):
            self._send(trace_id, self._call(trace_id, root))

    def _call(self, trace_id: str, root: str) -> bytes:
        return self._event(
            trace_id,
            new_step_id(),
            root,
            "tool_call",
            "end",
            tool="search",
            input="same",
            output="same",
        )

    def _event(
        self, trace_id: str, step_id: str, parent: str, kind: str, phase: str, **more: Any
    ) -> bytes:
        now_us = time.time_ns() // 1000
        event = {
            "schema_version": 1, "trace_id": trace_id, "step_id": step_id, "kind": kind,
            "name": "probe", "phase": phase,
            "agent": AGENT, "project": "bench", "start_time": now_us, "status": "ok", **more,
        }  # fmt: skip
        event |= {"parent_step_id": parent} if parent else {}
        event |= {"end_time": now_us} if phase == "end" else {}
        return json.dumps(event).encode()

    def _send(self, trace_id: str, value: bytes) -> None:
        self._client.produce(self._topic, value, trace_id.encode(), headers=list(RECORD_HEADERS))
        self._client.poll(0)


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument(
        "--maximum",
        type=float,
        default=0,
        help="events a second that count as the maximum (default: measured)",
    )
    flags.add_argument(
        "--seconds", type=float, default=25, help="at each load (default %(default)s)"
    )
    flags.add_argument(
        "--loads",
        nargs="*",
        default=["no", "light", "half", "nine tenths"],
        help="which (default: all)",
    )
    try:
        harness.run("alert_latency", measure, flags)
    except ChildFailed as error:
        sys.exit(f"alert_latency: {error}")
