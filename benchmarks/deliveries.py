"""A thousand subscriptions and two hundred alerts a second: what is lost, what comes twice, how
long it takes.

A real Kafka, notifiers in processes of their own, a real HTTP receiver. Each subscription wants one
agent's alerts; some are for all critical ones; one receiver is dead and one is slow. Every
change of an alert that a subscription wants must arrive once, and the changes of an alert in order.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import harness
from benchmarks.bench import broker, prepared, scratch_folder
from benchmarks.child import Child, ChildFailed
from benchmarks.harness import Goal, Report, percentile
from stepstream.admin import documents, groups, topics
from stepstream.admin.yamlfile import Place
from stepstream.common.kafka import producer
from stepstream.common.settings import to_environment
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.ids import derived_id
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.support.receiver import Call, receiver

SUBSCRIPTIONS: Final = 1_000
# So many of them want every critical alert.
CRITICAL: Final = 2
ALERTS_PER_S: Final = 200.0
SETTLE_S: Final = 60.0
SLOW_S: Final = 0.3
_encode = msgspec.json.Encoder().encode


@dataclass
class Received:
    """What arrived, by subscription."""

    received: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    took_ms: list[float] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)
    count: int = 0


@contextmanager
def receiving() -> Iterator[tuple[str, Received]]:
    """Takes what comes at /NAME; /dead is always broken, /slow takes its time."""
    found, guard = Received(), threading.Lock()

    def status(call: Call) -> int:
        if call.path == "/dead":
            return 503
        if call.path == "/slow":
            time.sleep(SLOW_S)
        alerts = call.data["alerts"]
        with guard:
            found.keys[call.headers["Idempotency-Key"]] += 1
            found.received[call.path[1:]] += [(one["alert_id"], one["seq"]) for one in alerts]
            found.count += len(alerts)
            if call.path != "/slow":
                found.took_ms += [(call.at_s * 1e6 - one["updated_at"]) / 1000 for one in alerts]
        return 200

    with receiver(status=status, answer=b"") as at:
        yield at.url, found


def subscriptions(url: str) -> list[Subscription]:
    """Who wants what."""

    def made(name: str, **match: Any) -> Subscription:
        return Subscription.model_validate(
            {"name": name, "match": match, "to": {"webhook": {"url": f"{url}/{name}"}}}
        )

    found = [made(f"agent-{n}", agent=f"agent-{n}") for n in range(SUBSCRIPTIONS - CRITICAL - 2)]
    found += [made(f"critical-{n}", severity=["critical"]) for n in range(CRITICAL)]
    return [*found, made("dead", agent="agent-1*"), made("slow", agent="agent-2")]


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Subscribe, start notifiers, publish at the rate, wait until all is quiet, compare."""
    seconds = 5.0 if report.quick else arguments.seconds
    with scratch_folder() as folder, ExitStack() as stack:
        kafka = stack.enter_context(broker(folder))
        settings = prepared(kafka.bootstrap, "soak", notify_allow_private=True, notify_port=-1)
        url, found = stack.enter_context(receiving())
        wanted = subscriptions(url)
        documents.apply(
            settings, [documents.Written(one, Place(Path(one.name), 0)) for one in wanted]
        )
        for _ in range(arguments.notifiers):
            command = [sys.executable, "-m", "stepstream", "notify"]
            stack.enter_context(Child([*command, "--lifeline"], to_environment(settings)))
        _ready(settings)
        report.progress(f"{len(wanted)} subscriptions, {arguments.notifiers} notifiers")
        expected, late_s = _publish(settings, seconds, arguments.rate, arguments.seed)
        total = sum(len(pairs) for name, pairs in expected.items())
        deadline = time.monotonic() + SETTLE_S
        while found.count < total and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)  # what comes twice comes late
        _compare(report, expected, found, late_s)


def _ready(settings: Settings) -> None:
    client, deadline = topics.admin(settings), time.monotonic() + 60
    while not groups.ready(client, settings, "notify"):
        if time.monotonic() > deadline:
            raise ChildFailed("the notifiers do not come up")
        time.sleep(0.2)


def _publish(
    settings: Settings, seconds: float, rate: float, seed: int
) -> tuple[dict[str, list[tuple[str, int]]], float]:
    """Alerts that open and, half of them, end a while later; what each subscription must receive,
    and how late we were."""
    dice = random.Random(seed)
    client, name = producer(settings, **{"linger.ms": 0}), topic(settings.topic_prefix, "alerts")
    expected: dict[str, list[tuple[str, int]]] = defaultdict(list)
    open_alerts: list[AlertStruct] = []
    began, sent, late_s = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        while sent < elapsed * rate:
            late_s = max(late_s, elapsed - sent / rate)
            now_us = time.time_ns() // 1000
            if len(open_alerts) > 5 * rate and dice.random() < 0.5:
                # Published long ago, so that its end is news.
                before = open_alerts.pop(dice.randrange(int(rate)))
                one = msgspec.structs.replace(
                    before, seq=2, state="resolved", updated_at=now_us, resolved_at=now_us
                )  # type: ignore[type-var]
            else:
                agent = f"agent-{dice.randrange(SUBSCRIPTIONS - CRITICAL - 2)}"
                one = AlertStruct(
                    alert_id=derived_id("soak", seed, sent), seq=1, state="firing", alert="loop",
                    rule="loop", agent=agent,
                    severity="critical" if dice.random() < 0.1 else "warning",
                    project=f"project-{sent % 7}",
                    message="search was called 4 times with the same input, with the same answer",
                    opened_at=now_us, updated_at=now_us,
                )  # fmt: skip
                open_alerts.append(one)
            for whose in _wanted_by(one):
                expected[whose].append((one.alert_id, one.seq))
            place = partition_for(one.project, settings.fleet_partitions)
            client.produce(name, _encode(one), one.alert_id.encode(), partition=place)
            client.poll(0)
            sent += 1
        time.sleep(0.002)
    client.flush(30)
    return expected, late_s


def _wanted_by(one: AlertStruct) -> list[str]:
    names = [one.agent]
    if one.severity == "critical":
        names += [f"critical-{n}" for n in range(CRITICAL)]
    if one.agent == "agent-2":
        names.append("slow")
    return names


def _compare(
    report: Report, expected: dict[str, list[tuple[str, int]]], found: Received, late_s: float
) -> None:
    lost = twice = disordered = 0
    for name, pairs in expected.items():
        received = found.received[name]
        lost += len(set(pairs) - set(received))
        twice += len(received) - len(set(received))
        last: dict[str, int] = {}
        for alert_id, seq in received:
            disordered += seq < last.get(alert_id, 0)
            last[alert_id] = seq
    foreign = sum(
        len(set(received) - set(expected.get(name, ())))
        for name, received in found.received.items()
    )
    total = sum(map(len, expected.values()))
    report.table(
        "deliveries",
        ("expected", "lost", "twice", "out of order", "to others", "publisher late ms"),
        [(total, lost, twice, disordered, foreign, late_s * 1000)],
    )
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    values = {name: percentile(found.took_ms, share) for name, share in shares.items()}
    report.table(
        "from the alert's record to the webhook",
        tuple(f"{name} ms" for name in values),
        [tuple(values.values())],
    )
    report.figures |= {f"alert_to_webhook_{name}_ms": value for name, value in values.items()}
    report.figures |= {"expected": total, "lost": lost, "twice": twice, "out_of_order": disordered}
    for what, count in (
        ("lost", lost),
        ("delivered twice", twice),
        ("out of order", disordered),
        ("to others", foreign),
    ):
        report.goals.append(Goal(what, float(count), 0, ""))
        if count:
            report.wrong.append(f"{count} of {total} deliveries {what}")


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument(
        "--seconds", type=float, default=60, help="how long alerts come (default %(default)s)"
    )
    flags.add_argument(
        "--rate", type=float, default=ALERTS_PER_S, help="alerts a second (default %(default)s)"
    )
    flags.add_argument("--notifiers", type=int, default=2, help="processes (default %(default)s)")
    try:
        harness.run("deliveries", measure, flags)
    except ChildFailed as error:
        sys.exit(f"deliveries: {error}")
