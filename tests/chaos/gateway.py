"""Gateways under load while they and the brokers are killed and frozen: what was acknowledged must
be in Kafka.

A crew of gateways on fixed ports, senders that repeat a batch until it is acknowledged (as
exporters do), and a count of what lies in the topic in the end.
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
SPANS: Final = 100
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
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    exits: list[str] = field(default_factory=list)


class Senders:
    """Threads that send spans with ids of their own, each batch again and again until it is
    acknowledged.
    """

    def __init__(self, urls: list[str], seed: int) -> None:
        self._urls = urls
        self._seed = seed
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self.acknowledged: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._threads = [
            threading.Thread(target=self._send, args=(number,), daemon=True)
            for number in range(SENDERS)
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
            while not self._try(chance.choice(self._urls), body):
                if self._stop.wait(0.1):
                    return
            with self._guard:
                self.acknowledged.update(ids)

    def _try(self, url: str, body: bytes) -> bool:
        request = urllib.request.Request(
            f"{url}/v1/traces", body, {"Content-Type": "application/json"}, method="POST"
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


def _body(trace_id: str, ids: list[str]) -> bytes:
    now_ns = time.time_ns()
    spans = [
        {
            "traceId": trace_id,
            "spanId": span_id,
            "parentSpanId": ids[0] if span_id != ids[0] else "",
            "name": "chat",
            "startTimeUnixNano": str(now_ns - 1_000),
            "endTimeUnixNano": str(now_ns),
            "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
                {"key": "input.value", "value": {"stringValue": "where is my order? " * 20}},
            ],
        }
        for span_id in ids
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


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
    senders = Senders(urls, seed)
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
    stored = {
        msgspec.json.decode(message.value() or b"{}")["step_id"]
        for message in read_to_end(settings, topic(prefix, "steps"))
    }
    outcome.acknowledged, outcome.stored = len(senders.acknowledged), len(stored)
    outcome.missing = sorted(senders.acknowledged - stored)
    outcome.answers, outcome.slowest_s = senders.answers, senders.slowest_s
    return outcome


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
