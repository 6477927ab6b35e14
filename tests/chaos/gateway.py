"""Gateways under load while they and the brokers are killed and frozen: what was acknowledged must
be in Kafka.

A crew of gateways on fixed ports, senders that repeat a batch until it is acknowledged (as
exporters do), and a count of what lies in the topic in the end. Some senders log the contents
of their calls apart from the spans, and after them.
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from stepstream.admin.topics import create_topics
from stepstream.common.kafka import read_to_end
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.local.embedded.ports import free_ports
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.chaos.crew import Crew, CrewSpec
from tests.support.processes import Process, wait_until

SENDERS: Final = 4
LOGGERS: Final = 2
SPANS: Final = 100
CALLS: Final = 10
RETRIED: Final = frozenset({429, 503})
# An exporter waits no longer for an answer.
GIVE_UP_S: Final = 10.0


@dataclass
class Outcome:
    """What came of it."""

    acknowledged: int = 0
    # Distinct spans in Kafka.
    stored: int = 0
    missing: list[str] = field(default_factory=list)
    # Calls whose contents were acknowledged as log records.
    logged: int = 0
    # Of these, calls whose span came to the same process, so that their steps must have them.
    to_amend: int = 0
    amended: int = 0
    # Acknowledged contents that are not in Kafka, or not where they must be.
    wrong_contents: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    exits: list[str] = field(default_factory=list)


class Senders:
    """Threads that send spans with ids of their own, each batch again and again until it is
    acknowledged.
    """

    def __init__(self, urls: list[str], starts: Callable[[str], int], seed: int) -> None:
        """``starts``: how often the gateway at an address has been started."""
        self._urls = urls
        self._starts = starts
        self._seed = seed
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self.acknowledged: set[str] = set()
        # Ids of spans whose contents were acknowledged, and whether one process had both.
        self.logged: dict[str, bool] = {}
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._threads = [
            threading.Thread(target=self._send, args=(number,), daemon=True)
            for number in range(SENDERS)
        ] + [
            threading.Thread(target=self._log, args=(SENDERS + number,), daemon=True)
            for number in range(LOGGERS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Begin no further batch, and wait for those under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _send(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        while not self._stop.is_set():
            ids = [f"{chance.getrandbits(64) | 1:016x}" for _ in range(SPANS)]
            body = _body(f"{chance.getrandbits(128) | 1:032x}", ids)
            while not self._try(f"{chance.choice(self._urls)}/v1/traces", body):
                if self._stop.wait(0.1):
                    return
            with self._guard:
                self.acknowledged.update(ids)

    def _log(self, number: int) -> None:
        """Send calls without contents, then their contents."""
        chance = random.Random(self._seed * 100 + number)
        while not self._stop.is_set():
            ids = [f"{chance.getrandbits(64) | 1:016x}" for _ in range(CALLS)]
            trace_id = f"{chance.getrandbits(128) | 1:032x}"
            spans_to, logs_to = chance.choice(self._urls), chance.choice(self._urls)
            before = self._starts(spans_to)
            if not self._until_taken(f"{spans_to}/v1/traces", _body(trace_id, ids, contents=False)):
                return
            with self._guard:
                self.acknowledged.update(ids)
            if not self._until_taken(f"{logs_to}/v1/logs", _logs(trace_id, ids)):
                return
            one_process = spans_to == logs_to and before == self._starts(logs_to)
            with self._guard:
                self.logged.update(dict.fromkeys(ids, one_process))

    def _until_taken(self, address: str, body: bytes) -> bool:
        """Send to one gateway until it has acknowledged; False at the end of the senders."""
        while not self._try(address, body):
            if self._stop.wait(0.1):
                return False
        return True

    def _try(self, address: str, body: bytes) -> bool:
        request = urllib.request.Request(
            address, body, {"Content-Type": "application/json"}, method="POST"
        )
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=GIVE_UP_S) as answer:
                outcome, data = str(answer.status), answer.read()
                assert data == b"{}", data
        except urllib.error.HTTPError as error:
            outcome = str(error.code) if error.code in RETRIED else f"unexpected {error.code}"
        except OSError as error:
            outcome = "no answer" if not isinstance(error, TimeoutError) else "timeout"
        with self._guard:
            self.answers[outcome] += 1
            if outcome == "200":
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return outcome == "200"


CONTENT_FIELDS: Final = frozenset({"input", "output", "input_bytes", "output_bytes", "amends"})
CONTENTS: Final = {"input.value": "where is my order? " * 20, "output.value": "on its way"}


def _body(trace_id: str, ids: list[str], contents: bool = True) -> bytes:
    now_ns = time.time_ns()
    given = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    if contents:
        given |= CONTENTS
    spans = [
        {
            "traceId": trace_id,
            "spanId": span_id,
            "parentSpanId": ids[0] if span_id != ids[0] else "",
            "name": "chat",
            "startTimeUnixNano": str(now_ns - 1_000),
            "endTimeUnixNano": str(now_ns),
            "attributes": [
                {"key": name, "value": {"stringValue": text}} for name, text in given.items()
            ],
        }
        for span_id in ids
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def _logs(trace_id: str, ids: list[str]) -> bytes:
    """Question and answer of each call; both name its span."""
    now_ns = time.time_ns()
    records = [
        {
            "timeUnixNano": str(now_ns),
            "traceId": trace_id,
            "spanId": span_id,
            "eventName": name,
            "body": {"stringValue": json.dumps(body)},
        }
        for span_id in ids
        for name, body in (
            ("gen_ai.user.message", {"content": f"question of {span_id}"}),
            ("gen_ai.choice", {"index": 0, "message": {"content": f"answer of {span_id}"}}),
        )
    ]
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


def play(kafka: EmbeddedKafka, prefix: str, folder: Path, *, seconds: float, seed: int) -> Outcome:
    """Load for a while, with faults about every second and a half; then count."""
    settings = Settings(
        kafka_brokers=kafka.bootstrap, topic_prefix=prefix, partitions=4, log_level="error"
    )
    create_topics(settings)
    ports = free_ports(2)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    crews = [
        Crew(_spec(port), settings.model_copy(update={"gateway_port": port}), folder)
        for port in ports
    ]
    outcome = Outcome()
    of_url = dict(zip(urls, crews, strict=True))
    senders = Senders(urls, lambda url: of_url[url].counts["starts"], seed)
    folder.mkdir(parents=True, exist_ok=True)
    with crews[0], crews[1]:
        wait_until(lambda: all(map(_is_ready, urls)), 60, "the gateways are ready")
        senders.start()
        _disturb(kafka, crews, outcome, seconds, random.Random(seed))
        for crew in crews:
            crew.all_on()
        before = len(senders.acknowledged)
        wait_until(
            lambda: len(senders.acknowledged) > before + SPANS * SENDERS,
            60,
            "it goes on after the faults",
        )
        senders.stop(30)
        for crew in crews:
            crew.end()
            outcome.exits += [f"{one.crew} {one.code}: {one.tail[-500:]}" for one in crew.exits]
    records = [
        msgspec.json.decode(message.value() or b"{}")
        for message in read_to_end(settings, topic(prefix, "steps"))
    ]
    stored = {record["step_id"] for record in records}
    outcome.acknowledged, outcome.stored = len(senders.acknowledged), len(stored)
    outcome.missing = sorted(senders.acknowledged - stored)
    outcome.answers, outcome.slowest_s = senders.answers, senders.slowest_s
    _check_contents(senders.logged, records, outcome)
    return outcome


def _check_contents(
    logged: dict[str, bool], records: list[dict[str, Any]], outcome: Outcome
) -> None:
    """Acknowledged contents are steps below their call; those of calls that the same process had
    are in the call's step too, and never in that of another call.
    """
    outcome.logged, outcome.to_amend = len(logged), sum(logged.values())
    below: dict[str, set[str]] = {}
    plain: dict[str, dict[str, Any]] = {}
    amended: dict[str, dict[str, Any]] = {}
    for record in records:
        kept = below.setdefault(record.get("parent_step_id", ""), set())
        kept.update(text for text in (record.get("input"), record.get("output")) if text)
        (amended if record.get("amends") else plain)[record["step_id"]] = record
    outcome.amended = len(amended)
    for span_id, must_amend in logged.items():
        texts = "".join(below.get(span_id, ()))
        if f"question of {span_id}" not in texts or f"answer of {span_id}" not in texts:
            outcome.wrong_contents.append(f"{span_id}: {texts or 'no steps below it'}")
        if must_amend and span_id not in amended:
            outcome.wrong_contents.append(f"{span_id}: its step was not sent again")
    for span_id, record in amended.items():
        given, answer = record.get("input", ""), record.get("output", "")
        if f"question of {span_id}" not in given or f"answer of {span_id}" not in answer:
            outcome.wrong_contents.append(f"{span_id}: {given} {answer}")
        rest = {name: record[name] for name in record if name not in CONTENT_FIELDS}
        if span_id not in plain or rest != plain[span_id]:
            outcome.wrong_contents.append(f"{span_id}: differs from its step")


def _spec(port: int) -> CrewSpec:
    def start(settings: Settings, log: Path) -> Process:
        return Process("stepstream", settings, log, "gateway")

    return CrewSpec(f"gateway-{port}", start, 1)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _disturb(
    kafka: EmbeddedKafka,
    crews: list[Crew],
    outcome: Outcome,
    seconds: float,
    chance: random.Random,
) -> None:
    """Kill and freeze gateways and the broker; each kind of fault at least once."""
    faults = ["kill gateway", "kill broker", "freeze broker", "freeze gateway", "roll gateway"]
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or number < len(faults):
        fault = faults[number] if number < len(faults) else chance.choice(faults)
        number += 1
        crew = chance.choice(crews)
        outcome.faults[fault] += 1
        match fault:
            case "kill gateway":
                crew.kill(0)
            case "roll gateway":
                crew.roll(0)
            case "freeze gateway":
                process = crew.freeze(0)
                time.sleep(1)
                if process is not None:
                    process.thaw()
            case "kill broker":
                kafka.kill(0)
                time.sleep(1)
                kafka.restart(0)
            case _:
                kafka.pause(0)
                time.sleep(chance.uniform(1, 6))
                kafka.resume(0)
        time.sleep(chance.uniform(0.5, 2.5))
