"""The gateway: CPU a span, spans acknowledged and found by SQL, overload, outages of Kafka; other
backends with the same requests.

Bodies are OTLP requests of 512 spans, gzipped, as OpenTelemetry's SDKs send them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import harness, otlp_peers
from benchmarks.bench import broker, prepared, records_in, scratch_folder, steps_topic
from benchmarks.child import Answer, Child, ChildFailed
from benchmarks.harness import NOT_INSTALLED, Goal, Report, percentile
from benchmarks.machine import CpuMeter, pss_bytes
from benchmarks.otlp_agent import QUEUE_SPANS
from benchmarks.otlp_load import JSON, PROTOBUF, SPANS, OtlpLoad
from benchmarks.otlp_sender import REFUSED, OtlpSender
from stepstream.common.kafka import read_to_end
from stepstream.common.settings import load, to_environment
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.local.embedded.ports import free_ports
from stepstream.local.supervisor import Pipeline
from stepstream.producers.gateway.mapping.attributes import AttributeReader
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.spans import Span
from stepstream.producers.gateway.otlp import otlp_json, protobuf
from stepstream.producers.gateway.service.ingest import Ingest
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import AnyStep
from stepstream.sinks.clickhouse import connect

PARTS: Final = ("mapping", "alone", "outage", "pipeline", "peers")
STEADY_SPANS_PER_S: Final = 10_000
OVERLOAD: Final = 5
# Spans found by SQL are counted so long after the last one was sent.
AFTER_S: Final = 60.0
OUTAGE_S: Final = 30.0
AGENT_SPANS_PER_S: Final = 40
# The exporter's time for a batch with all its attempts: its default of 10 s is shorter than the
# outage.
AGENT_TIMEOUT_S: Final = 120.0
FORMS: Final = {PROTOBUF: "protobuf", JSON: "JSON"}
_FOUND: Final = (
    "SELECT session_id, count() FROM steps WHERE startsWith(session_id, 'batch-') "
    "GROUP BY session_id"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    bodies: int
    rounds: int
    seconds: float
    steady_s: float
    after_s: float
    outage_s: float


FULL: Final = Scale(8, 25, 10, 60, AFTER_S, OUTAGE_S)
QUICK: Final = Scale(2, 3, 2, 3, 5, 6)


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """The parts that are asked for, one after the other."""
    scale = QUICK if report.quick else FULL
    parts: dict[str, Callable[[Path], None]] = {
        "mapping": lambda _folder: _mapping(report, scale, arguments.seed),
        "alone": lambda folder: _alone(report, scale, folder),
        "outage": lambda folder: _outage(report, scale, folder),
        "pipeline": lambda folder: _pipeline(report, scale, folder),
        "peers": lambda folder: _peers(report, scale, folder, install=arguments.peers),
    }
    for name in arguments.only or PARTS:
        report.progress(name)
        with scratch_folder() as folder:
            parts[name](folder)


# Decoding and mapping, in this process.


def _mapping(report: Report, scale: Scale, seed: int) -> None:
    rows: list[tuple[str, int, float, float]] = []
    for form, name in FORMS.items():
        for spans in (SPANS, 1):
            count = scale.bodies if spans > 1 else scale.bodies * 50
            whole, without = _mapping_us(form, spans, count, scale.rounds, seed)
            rows.append((name, spans, whole, whole - without))
            report.figures[f"mapping_{name.lower()}_{spans}_us_per_span"] = whole
    redaction = max(row[3] for row in rows if row[1] > 1)
    report.figures["redaction_us_per_span"] = redaction
    columns = ("format", "spans a body", "CPU us a span", "of it redaction")
    report.table("decoding, mapping, redaction and encoding alone", columns, rows)
    report.goals.append(Goal("redaction", redaction, 8, "us/span"))
    parts = {
        name: _parts_us(form, scale.bodies, scale.rounds, seed) for form, name in FORMS.items()
    }
    report.table(
        f"its parts, {SPANS} spans a body, CPU us a span",
        ("part", *parts),
        [(part, *(found[part] for found in parts.values())) for part in next(iter(parts.values()))],
    )


def _mapping_us(form: str, spans: int, count: int, rounds: int, seed: int) -> tuple[float, float]:
    """CPU a span with and without redaction: each the fastest of several rounds, in turns."""
    now_ns = time.time_ns()
    made = OtlpLoad(form, spans, seed=seed)
    bodies = [made.body(now_ns, compressed=False).data for _ in range(count)]
    both = [Ingest(Options(redact=redact)) for redact in (True, False)]
    origin = Origin("default", now_ns // 1_000)
    best = [float("inf")] * len(both)
    for _ in range(rounds):
        for number, ingest in enumerate(both):
            began = time.process_time()
            for body in bodies:
                *_, batch = ingest.traces(body, form, origin)
                assert batch.taken == spans, batch.first
            best[number] = min(best[number], time.process_time() - began)
    per_us = count * spans / 1e6
    return best[0] / per_us, best[1] / per_us


def _parts_us(form: str, count: int, rounds: int, seed: int) -> dict[str, float]:
    """CPU a span of each part, the fastest of several rounds in turns. What is left of the whole is
    the work on slices and batches."""
    now_ns = time.time_ns()
    made = OtlpLoad(form, SPANS, seed=seed)
    bodies = [made.body(now_ns, compressed=False).data for _ in range(count)]
    decode = protobuf.spans if form == PROTOBUF else otlp_json.spans
    spans = [span for body in bodies for span in decode(body) if isinstance(span, Span)]
    origin = Origin("default", now_ns // 1_000)
    with_redaction, without = Mapper(Options()), Mapper(Options(redact=False))
    steps = [step for span in spans for step in taken(with_redaction.steps(span, origin))]
    reader, ingest = AttributeReader(), Ingest(Options())
    encode = msgspec.json.Encoder().encode
    works: dict[str, Callable[[], object]] = {
        "decoding": lambda: [1 for body in bodies for _ in decode(body)],
        "sorting attributes": lambda: [reader.read(span.attributes) for span in spans],
        "mapping": lambda: [without.steps(span, origin) for span in spans],
        "redaction": lambda: [with_redaction.steps(span, origin) for span in spans],
        "encoding": lambda: [encode(step) for step in steps],
        "slices and batches": lambda: [list(ingest.traces(body, form, origin)) for body in bodies],
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for part, work in works.items():
            began = time.process_time()
            work()
            best[part] = min(best[part], time.process_time() - began)
    us = {part: seconds / len(spans) * 1e6 for part, seconds in best.items()}
    # The measured work of these two contains that of others.
    us["redaction"] -= us["mapping"]
    us["slices and batches"] -= us["decoding"] + us["mapping"] + us["redaction"] + us["encoding"]
    us["mapping"] -= us["sorting attributes"]
    return us


def taken(found: list[AnyStep] | Refused) -> list[AnyStep]:
    """The steps of a span, which must not be refused."""
    assert not isinstance(found, Refused), found
    return found


# A gateway and Kafka, nothing else.


@dataclass(frozen=True)
class RunningGateway:
    """A gateway in a process of its own."""

    url: str
    pid: int
    settings: Settings

    @property
    def traces(self) -> str:
        return f"{self.url}/v1/traces"


@contextmanager
def running_gateway(kafka: EmbeddedKafka, prefix: str, folder: Path) -> Iterator[RunningGateway]:
    """A gateway over topics of its own, until the block ends."""
    port = free_ports(1)[0]
    settings = prepared(kafka.bootstrap, prefix, gateway_port=port, log_level="error")
    with (folder / f"{prefix}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepstream", "gateway"],
            env={**os.environ, **to_environment(settings)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    made = RunningGateway(f"http://127.0.0.1:{port}", process.pid, settings)
    try:
        _wait_ready(made.url)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise ChildFailed(f"the gateway at {url} is not ready after 120 s")


def _alone(report: Report, scale: Scale, folder: Path) -> None:
    with (
        broker(folder) as kafka,
        running_gateway(kafka, "alone", folder) as gateway,
        OtlpSender() as sender,
    ):
        alone = _Alone(report, scale, kafka, gateway, sender)
        alone.warm_up()
        for form in FORMS:
            alone.row(form, SPANS, connections=4)
        alone.row(PROTOBUF, 1, connections=16)
        alone.row(PROTOBUF, SPANS, connections=64)
        alone.steady()
        alone.overload()
        alone.show()


class _Alone:
    """Loads of different shapes on one gateway."""

    def __init__(
        self,
        report: Report,
        scale: Scale,
        kafka: EmbeddedKafka,
        gateway: RunningGateway,
        sender: OtlpSender,
    ) -> None:
        self.report, self.scale, self.gateway, self.sender = report, scale, gateway, sender
        self.meter = CpuMeter({"gateway": [gateway.pid], "kafka": kafka.pids})
        self.rows: list[Sequence[float | str | None]] = []
        self.most = 0.0
        self._in_topic = 0
        self._seed = 10

    def warm_up(self) -> None:
        """Let imports, connections and Java's compiler settle."""
        self.sender.load(PROTOBUF, 40, seed=9)
        self.sender.send(self.gateway.traces, connections=4, seconds=self.scale.seconds)
        self._in_topic = records_in(self.gateway.settings, steps_topic(self.gateway.settings))

    def _send(
        self, form: str, spans: int, count: int, **how: Any
    ) -> tuple[Answer, dict[str, float]]:
        self._seed += 1
        self.sender.load(form, count, spans=spans, seed=self._seed)
        self.meter.lap()
        answer = self.sender.send(self.gateway.traces, **how)
        used = self.meter.lap()
        self._check(answer)
        return answer, used

    def _check(self, answer: Answer) -> None:
        """What was acknowledged must be in the topic; repeats of what was refused may be too."""
        now = records_in(self.gateway.settings, steps_topic(self.gateway.settings))
        stored, acked = now - self._in_topic, answer["acked_spans"]
        self._in_topic = now
        if stored < acked:
            self.report.wrong.append(f"{acked:,} spans were acknowledged, {stored:,} are in Kafka")

    def row(self, form: str, spans: int, *, connections: int) -> None:
        """As fast as this many connections are answered."""
        seconds = self.scale.seconds
        count = int((30_000 if spans > 1 else 9_000) * seconds / spans)
        answer, used = self._send(form, spans, count, connections=connections, seconds=seconds)
        took_s = answer["ended_s"] - answer["began_s"]
        acked = answer["acked_spans"]
        rate, cpu_us = acked / took_s, used["gateway"] / max(1, acked) * 1e6
        p50, p99 = _percentiles_ms(answer)
        name = f"{FORMS[form]}, {spans} a body, {connections} connections"
        self.rows.append((name, rate, cpu_us, used["kafka"] / max(1, acked) * 1e6, p50, p99))
        label = f"{FORMS[form].lower()}_{spans}_by_{connections}"
        self.report.figures |= {
            f"alone_{label}_acked_per_s": rate,
            f"alone_{label}_cpu_us_per_span": cpu_us,
            f"alone_{label}_p99_ms": p99,
        }
        if connections == 4:
            self.most = max(self.most, rate)
            self.report.goals.append(
                Goal(f"gateway, {FORMS[form]}, {SPANS} spans a body", cpu_us, 15, "CPU us/span")
            )
            # What it would take if it had a core to itself, as the goal has it.
            per_core = 1e6 / cpu_us
            self.report.goals.append(
                Goal(
                    f"acked with one core, {FORMS[form]}",
                    per_core,
                    50_000,
                    "spans/s",
                    at_most=False,
                )
            )
        if spans == 1:
            self.report.goals.append(Goal("gateway, one span a body", cpu_us, 60, "CPU us/span"))

    def steady(self) -> None:
        """Latency at a rate that it can keep up with."""
        seconds = self.scale.seconds * 2
        count = int(STEADY_SPANS_PER_S * seconds / SPANS)
        answer, _ = self._send(
            PROTOBUF, SPANS, count, connections=16, seconds=seconds, rate=STEADY_SPANS_PER_S
        )
        p50, p99 = _percentiles_ms(answer)
        name = f"protobuf, {STEADY_SPANS_PER_S:,} spans/s"
        rate = answer["acked_spans"] / (answer["ended_s"] - answer["began_s"])
        self.rows.append((name, rate, None, None, p50, p99))
        self.report.figures |= {"steady_ack_p50_ms": p50, "steady_ack_p99_ms": p99}
        at = f"at {STEADY_SPANS_PER_S:,} spans/s"
        self.report.goals += [
            Goal(f"acknowledgement {at}, p50", p50, 15, "ms"),
            Goal(f"acknowledgement {at}, p99", p99, 100, "ms"),
        ]

    def overload(self) -> None:
        """Five times what it can take."""
        seconds = self.scale.seconds * 2
        rate = OVERLOAD * self.most
        answer, _ = self._send(
            PROTOBUF,
            SPANS,
            int(30_000 * seconds / SPANS),
            connections=256,
            seconds=seconds,
            rate=rate,
        )
        _report_overload(self.report, "gateway alone", rate, answer)

    def show(self) -> None:
        columns = ("load", "acked spans/s", "CPU us/span", "Kafka us/span", "ack p50 ms", "p99 ms")
        self.report.table("a gateway and Kafka alone", columns, self.rows)


def _percentiles_ms(answer: Answer) -> tuple[float, float]:
    """p50 and p99 of acknowledgements, from when each request was due."""
    took = answer["took_s"].get("200")
    if not took:
        return 0.0, 0.0
    return percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000


def _report_overload(report: Report, where: str, rate: float, answer: Answer) -> None:
    answers = answer["answers"]
    took = [one for some in answer["answered_s"].values() for one in some]
    p50, p99 = percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000
    took_s = answer["ended_s"] - answer["began_s"]
    refused = sum(answers.get(status, 0) for status in REFUSED)
    other = sum(answers.values()) - refused - answers.get("200", 0)
    report.table(
        f"{OVERLOAD} times what it can take ({rate:,.0f} spans/s offered), {where}",
        ("acked spans/s", "answers", "refused", "others", "p50 ms", "p99 ms", "max ms"),
        [
            (
                answer["acked_spans"] / took_s,
                sum(answers.values()),
                refused,
                other,
                p50,
                p99,
                max(took) * 1000,
            )
        ],
    )
    early = answer["probed_before_body"]
    report.notes.append(
        f"{where}, overload: {answer['probed']} refused requests waited for 100 Continue, {early} "
        f"of them were refused before their body was sent; answers {answers}; first refusal: "
        f"{answer['first_error']}"
    )
    report.goals += [
        Goal(f"{where}, overload: p99 of every answer", p99 / 1000, 2, "s"),
        Goal(f"{where}, overload: answers other than 200, 429, 503", other, 0, ""),
        Goal(
            f"{where}, overload: refusals without Retry-After", answer["without_retry_after"], 0, ""
        ),
        Goal(f"{where}, overload: probed refusals after the body", answer["probed"] - early, 0, ""),
    ]
    report.figures |= {f"overload_{where.replace(' ', '_')}_p99_s": p99 / 1000}


# Kafka away.


def _outage(report: Report, scale: Scale, folder: Path) -> None:
    with broker(folder) as kafka:
        with running_gateway(kafka, "frozen", folder) as gateway, OtlpSender() as sender:
            _frozen(report, scale, kafka, gateway, sender)
        with running_gateway(kafka, "agent", folder) as gateway:
            _agent(report, scale, kafka, gateway)


def _frozen(
    report: Report, scale: Scale, kafka: EmbeddedKafka, gateway: RunningGateway, sender: OtlpSender
) -> None:
    """Every answer and the memory while the broker does not answer, under load."""
    sender.load(PROTOBUF, 400, seed=31)
    sender.send(gateway.traces, connections=4, seconds=2)
    before = pss_bytes([gateway.pid]) / 2**20
    kafka.pause(0)
    try:
        answer = sender.send(gateway.traces, connections=16, seconds=scale.outage_s / 2)
        grown = pss_bytes([gateway.pid]) / 2**20 - before
    finally:
        kafka.resume(0)
    slowest = max(one for some in answer["answered_s"].values() for one in some)
    began = time.monotonic()
    after = sender.send(gateway.traces, connections=4, seconds=10)
    recovered_s = after["ended_s"] - began
    report.table(
        "Kafka frozen",
        ("answers", "slowest s", "memory grew MB", "went on after s"),
        [(str(answer["answers"]), slowest, grown, recovered_s)],
    )
    report.figures |= {"frozen_slowest_answer_s": slowest, "frozen_memory_grew_mb": grown}
    report.goals.append(Goal("Kafka away: slowest answer", slowest, 4, "s"))
    report.goals.append(Goal("Kafka away: memory grew by", grown, 256, "MB"))


def _agent(report: Report, scale: Scale, kafka: EmbeddedKafka, gateway: RunningGateway) -> None:
    """OpenTelemetry's own SDK over an outage: what arrives of what it emitted."""
    seconds = scale.outage_s + 10
    with Child.module("benchmarks.otlp_agent") as agent:
        agent.send(
            do="emit",
            url=gateway.url,
            seconds=seconds,
            spans_per_s=AGENT_SPANS_PER_S,
            timeout_s=AGENT_TIMEOUT_S,
        )
        time.sleep(3)
        kafka.pause(0)
        time.sleep(scale.outage_s)
        kafka.resume(0)
        emitted = set(agent.wait(300)["ids"])
    stored = {
        json.loads(message.value() or b"{}")["step_id"]
        for message in read_to_end(gateway.settings, steps_topic(gateway.settings))
    }
    lost = len(emitted - stored)
    report.table(
        f"OpenTelemetry's SDK over an outage of {scale.outage_s:.0f} s",
        ("spans/s", "emitted", "stored", "lost"),
        [(AGENT_SPANS_PER_S, len(emitted), len(emitted & stored), lost)],
    )
    report.notes.append(
        f"the SDK's queue takes {QUEUE_SPANS} spans, so it loses none up to "
        f"{QUEUE_SPANS / scale.outage_s:.0f} spans/s; its exporter had {AGENT_TIMEOUT_S:.0f} s "
        "for each batch"
    )
    report.figures["outage_sdk_lost"] = lost
    report.goals.append(
        Goal(f"outage of {scale.outage_s:.0f} s: spans lost by a stock SDK", lost, 0, "")
    )


# Everything that `stepstream up` runs.


def _pipeline(report: Report, scale: Scale, folder: Path) -> None:
    settings = load(
        environ={}, file=Path(os.devnull), state_dir=str(folder), data_dir=str(folder / "data")
    )
    with (
        Pipeline(settings, report=lambda who, line: report.progress(f"{who}: {line}")) as pipeline,
        OtlpSender() as sender,
    ):
        _wait_ready(pipeline.gateway_url)
        bench = _Whole(report, scale, pipeline, sender)
        bench.rootless()
        bench.steady()
        bench.overload(bench.maximum())
        bench.show()


class _Whole:
    """The gateway with worker, sink and store behind it."""

    def __init__(
        self, report: Report, scale: Scale, pipeline: Pipeline, sender: OtlpSender
    ) -> None:
        self.report, self.scale, self.pipeline, self.sender = report, scale, pipeline, sender
        self.url = f"{pipeline.gateway_url}/v1/traces"
        self.rows: list[Sequence[float | str | None]] = []

    def rootless(self) -> None:
        """Traces whose root is in a process that does not report: when are they closed?"""
        bodies = 10 if self.report.quick else 60
        self.sender.load(PROTOBUF, bodies, spans=16, seed=41, remote=True)
        closed: dict[str, float] = {}
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch_closed, args=(closed, stop))
        watcher.start()
        rate = 16 * 10  # ten traces a second
        answer = self.sender.send(self.url, connections=4, seconds=60, rate=rate)
        sent = {
            batch: answer["began_s"] + number * 16 / rate
            for number, batch in enumerate(sorted(answer["acked"]))
        }
        deadline = time.monotonic() + 20
        while len(closed) < len(sent) and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        watcher.join()
        took = [closed[batch] - at for batch, at in sent.items() if batch in closed]
        in_time = sum(one < 5 for one in took)
        row = (len(sent), len(took), in_time, percentile(took, 0.5), max(took)) if took else ()
        self.report.table(
            "traces whose root is elsewhere, until their run is closed in SQL",
            ("traces", "closed", "in 5 s", "p50 s", "max s"),
            [row] if row else [],
        )
        share = 100 * in_time / max(1, len(sent))
        self.report.figures["rootless_closed_in_5_s_percent"] = share
        self.report.goals.append(
            Goal("rootless traces closed in 5 s", share, 100, "%", at_most=False)
        )

    def _watch_closed(self, closed: dict[str, float], stop: threading.Event) -> None:
        query = "SELECT session_id FROM runs WHERE closed AND startsWith(session_id, 'batch-41')"
        with connect(self.pipeline.settings) as client:
            while not stop.wait(0.1):
                for (batch,) in client.query(query).result_rows:
                    closed.setdefault(batch, time.monotonic())

    def steady(self) -> None:
        """A steady rate for a minute; what SQL finds a minute later."""
        seconds = self.scale.steady_s
        self.sender.load(PROTOBUF, int(STEADY_SPANS_PER_S * seconds / SPANS), seed=42)
        answer = self._sent("steady", connections=16, seconds=seconds, rate=STEADY_SPANS_PER_S)
        found = self.rows[-1][4]
        took_s = answer["ended_s"] - answer["began_s"]
        rate = float(found or 0) / max(took_s, seconds)
        p50, p99 = _percentiles_ms(answer)
        self.report.figures |= {
            "pipeline_found_per_s": rate,
            "pipeline_steady_ack_p50_ms": p50,
            "pipeline_steady_ack_p99_ms": p99,
        }
        self.report.goals.append(
            Goal(
                f"found by SQL {self.scale.after_s:.0f} s after the end, of "
                f"{STEADY_SPANS_PER_S:,} sent a second",
                rate,
                # The last batch is sent a moment before the end of its second.
                STEADY_SPANS_PER_S * 0.995,
                "spans/s",
                at_most=False,
            )
        )

    def maximum(self) -> float:
        """As much as four connections bring in."""
        seconds = self.scale.seconds * 2
        self.sender.load(PROTOBUF, int(30_000 * seconds / SPANS), seed=43)
        answer = self._sent("as fast as it is taken", connections=4, seconds=seconds)
        rate = answer["acked_spans"] / (answer["ended_s"] - answer["began_s"])
        self.report.figures["pipeline_acked_per_s"] = rate
        return float(rate)

    def overload(self, most: float) -> None:
        """Five times that."""
        seconds, rate = self.scale.seconds * 2, OVERLOAD * most
        self.sender.load(PROTOBUF, int(30_000 * seconds / SPANS), seed=44)
        answer = self._sent("overload", connections=256, seconds=seconds, rate=rate)
        _report_overload(self.report, "whole pipeline", rate, answer)

    def _sent(self, name: str, **how: Any) -> Answer:
        """Send, wait, and compare what SQL finds with what was acknowledged."""
        answer = self.sender.send(self.url, **how)
        acked: dict[str, int] = dict.fromkeys(answer["acked"], SPANS)
        with connect(self.pipeline.settings) as client:

            def found() -> int:
                rows: dict[str, int] = dict(client.query(_FOUND).result_rows)  # type: ignore[arg-type]
                return sum(min(rows.get(batch, 0), count) for batch, count in acked.items())

            at_end = found()
            time.sleep(max(0.0, answer["ended_s"] + self.scale.after_s - time.monotonic()))
            after = found()
            deadline = time.monotonic() + 300
            final = after
            while final < answer["acked_spans"] and time.monotonic() < deadline:
                time.sleep(1)
                final = found()
        if final < answer["acked_spans"]:
            self.report.wrong.append(
                f"{name}: {answer['acked_spans']:,} spans acknowledged, SQL finds {final:,}"
            )
        took_s = answer["ended_s"] - answer["began_s"]
        p50, p99 = _percentiles_ms(answer)
        rate = answer["acked_spans"] / took_s
        self.rows.append((name, rate, answer["acked_spans"], at_end, after, final, p50, p99))
        return answer

    def show(self) -> None:
        columns = (
            "load",
            "acked spans/s",
            "acked",
            "found at the end",
            f"{self.scale.after_s:.0f} s later",
            "finally",
            "ack p50 ms",
            "p99 ms",
        )
        self.report.table("the whole pipeline", columns, self.rows)


# Others.


def _peers(report: Report, scale: Scale, folder: Path, *, install: bool) -> None:
    rows: list[Sequence[float | str | None]] = []
    for peer in otlp_peers.PEERS:
        if install:
            try:
                peer.package.install()
            except subprocess.CalledProcessError as error:
                report.notes.append(f"{peer.name} cannot be installed: {error}")
        if not peer.package.installed:
            rows.append((f"{peer.name} ({NOT_INSTALLED}: --peers)", *(None,) * 6))
            continue
        rows.append(_peer(report, scale, folder / peer.name, peer))
    columns = (
        "backend",
        "acked spans/s",
        "acked",
        f"found {scale.after_s:.0f} s after",
        "found/s",
        "CPU us/span",
        "ack p99 ms",
    )
    report.table("other backends, the same bodies over 4 connections", columns, rows)


def _peer(
    report: Report, scale: Scale, folder: Path, peer: otlp_peers.OtlpPeer
) -> Sequence[float | str | None]:
    try:
        with otlp_peers.running(peer, folder) as running, OtlpSender() as sender:
            before = running.stored()
            sender.load(PROTOBUF, int(20_000 * scale.seconds * 2 / SPANS), seed=51)
            meter = CpuMeter({"peer": [running.pid]})
            answer = sender.send(
                running.url,
                connections=4,
                seconds=scale.seconds * 2,
                timeout_s=30,
                headers=peer.headers,
            )
            time.sleep(scale.after_s)
            found = running.stored() - before
            used = meter.lap()["peer"]
    except otlp_peers.PeerFailed as error:
        report.notes.append(f"{peer.name}: {error}")
        return (peer.name, *(None,) * 6)
    took_s = answer["ended_s"] - answer["began_s"]
    name = peer.name.lower()
    report.figures |= {
        f"{name}_acked_per_s": answer["acked_spans"] / took_s,
        f"{name}_found_per_s": found / took_s,
    }
    if answer["first_error"]:
        report.notes.append(f"{peer.name}: answers {answer['answers']}; {answer['first_error']}")
    return (
        peer.name,
        answer["acked_spans"] / took_s,
        answer["acked_spans"],
        found,
        found / (took_s + scale.after_s),
        used / max(1, found) * 1e6,
        _percentiles_ms(answer)[1],
    )


def flags() -> argparse.ArgumentParser:
    """Its own flags and the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument(
        "--peers", action="store_true", help="install the peers that are missing first"
    )
    made.add_argument("--only", action="append", choices=PARTS, help="these parts alone")
    return made


if __name__ == "__main__":
    try:
        harness.run("gateway", measure, flags())
    except ChildFailed as error:
        sys.exit(f"gateway: {error}")
