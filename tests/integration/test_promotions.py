"""Promotions over a real broker: decided once, in log order, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from stepstream.common.kafka import (
    KafkaUnreachable,
    Outgoing,
    producer,
    read_to_end,
    send_and_wait,
)
from stepstream.common.letters import Unreadable
from stepstream.releases.topic import publish, read_log, send_promotion
from stepstream.schemas.policy import Policy
from stepstream.schemas.promotion import Promotion
from stepstream.schemas.release import Release
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.shell import release_decider
from stepstream.stream.shell.release_decider import ReleaseDecider
from tests.support.processes import wait_until
from tests.support.release_folder import built
from tests.support.release_labels import stepped

# In the future, so that no command is too old.
NOW_US = 2_000_000_000_000_000


@pytest.fixture
def releases(settings: Settings, tmp_path: Path) -> list[Release]:
    """Three published releases: v1, v2, v3."""
    found = [built(tmp_path / version, version) for version in ("v1", "v2", "v3")]
    for release in found:
        publish(settings, release)
    return found


def command(release: Release | None, expected: int, **more: Any) -> Promotion:
    """A promotion to production; without a release a rollback."""
    fields: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "action": "rollback" if release is None else "promote",
        "agent": "support",
        "label": "production",
        "release": "" if release is None else release.hash,
        "expected": expected,
        "by": "ann",
        "at": NOW_US,
    }
    return Promotion.model_validate(fields | more)


def a_decider(settings: Settings, policies: list[Policy] | None = None) -> ReleaseDecider:
    return ReleaseDecider(settings, policies=lambda: policies or [], is_owner=lambda: True)


def settle(decider: ReleaseDecider, settings: Settings, *commands: Promotion) -> list[str]:
    """Let it decide about all commands; the outcomes."""

    def outcomes() -> list[str]:
        stepped(decider)
        log = read_log(settings)
        found = [log.decision(one) for one in commands]
        return [one.outcome for one in found if one is not None] if all(found) else []

    return wait_until(outcomes, 60, "the decisions")


def records(settings: Settings) -> Counter[str]:
    """Records on the topic by the kind of their keys; deletions apart."""
    counts: Counter[str] = Counter()
    for message in read_to_end(settings, topic(settings.topic_prefix, "releases")):
        kind = (message.key() or b"").decode().split("/")[0]
        counts[kind if message.value() else f"{kind} deleted"] += 1
    return counts


def test_of_two_promotions_at_once_one_is_refused(
    settings: Settings, releases: list[Release]
) -> None:
    """The second in the log, whichever worker decides; the refusal is in the audit log too."""
    first, second = command(releases[0], 0), command(releases[1], 0, by="bob")
    for one in (first, second):
        send_promotion(settings, one)
    decider = a_decider(settings)
    assert settle(decider, settings, first, second) == ["accepted", "refused"]
    log = read_log(settings)
    head = log.label("support", "production")
    assert head is not None
    assert (head.version, head.change) == ("v1", 1)
    assert "changed meanwhile" in log.decisions("support")[1].why
    # Later, in one transaction each, with what came before.
    third, back = command(releases[2], 1), command(None, 2)
    send_promotion(settings, third)
    assert settle(decider, settings, third) == ["accepted"]
    send_promotion(settings, back)
    assert settle(decider, settings, back) == ["accepted"]
    assert [one.version for one in read_log(settings).decisions("support")] == [
        "v1", "v1", "v3", "v1",
    ]  # fmt: skip
    assert records(settings)["promotion deleted"] == 4
    decider.close()


KILLED = """
import os, signal, sys
from confluent_kafka import KafkaException, Producer
from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.stream.shell.release_decider import ReleaseDecider
import stepstream.stream.shell.release_decider as module

point = sys.argv[3]

class Killed(Producer):
    writes = 0

    def produce(self, *given, **more):
        super().produce(*given, **more)
        Killed.writes += 1
        if point == f"write {Killed.writes}":
            self.flush(10)
            os.kill(os.getpid(), signal.SIGKILL)

    def commit_transaction(self, *given):
        if point == "before the commit":
            self.flush(10)
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit_transaction(*given)
        os.kill(os.getpid(), signal.SIGKILL)

kafka.Producer = Killed
settings = Settings(kafka_brokers=sys.argv[1], topic_prefix=sys.argv[2])
decider = ReleaseDecider(settings, policies=lambda: [], is_owner=lambda: True)
for _ in range(200):
    try:
        decider.step(0.2)
    except KafkaException as error:
        print(error, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "point", ["write 1", "write 2", "write 3", "before the commit", "after the commit"]
)
def test_a_worker_that_is_killed_while_it_decides(
    settings: Settings, releases: list[Release], point: str
) -> None:
    """Between decision, labels and deletion, before and after the commit: one outcome each."""
    first, second = command(releases[0], 0), command(releases[1], 0)
    for one in (first, second):
        send_promotion(settings, one)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, settings.kafka_brokers, settings.topic_prefix, point],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    decider = a_decider(settings)
    assert settle(decider, settings, first, second) == ["accepted", "refused"]
    head = read_log(settings).label("support", "production")
    assert head is not None
    assert (head.version, head.change) == ("v1", 1)
    # What the killed worker wrote without a commit was never visible, and is not written twice.
    counts = records(settings)
    assert (counts["decision"], counts["promotion deleted"]) == (2, 2)
    decider.close()


def test_a_replaced_worker_decides_nothing(settings: Settings, releases: list[Release]) -> None:
    """It stood still while another one decided: Kafka refuses its records, and it reads again."""
    old, new = a_decider(settings), a_decider(settings)
    first, second, third = (command(release, n) for n, release in enumerate(releases))
    send_promotion(settings, first)
    assert settle(old, settings, first) == ["accepted"]
    send_promotion(settings, second)
    assert settle(new, settings, second) == ["accepted"]
    send_promotion(settings, third)
    with pytest.raises(KafkaException):
        wait_until(lambda: old.step(0.2) and None, 60, "the refusal")
    assert read_log(settings).decision(third) is None
    assert settle(old, settings, third) == ["accepted"]
    head = read_log(settings).label("support", "production")
    assert head is not None
    assert (head.version, head.change) == ("v3", 3)
    assert records(settings)["decision"] == 3
    old.close()
    new.close()


def test_only_the_owner_decides(settings: Settings, releases: list[Release]) -> None:
    """Other workers follow, and continue when they become the owner."""
    owns = threading.Event()
    decider = ReleaseDecider(settings, policies=lambda: [], is_owner=owns.is_set)
    one = command(releases[0], 0)
    send_promotion(settings, one)
    for _ in range(5):
        decider.step(0.2)
    assert read_log(settings).decision(one) is None
    owns.set()
    assert settle(decider, settings, one) == ["accepted"]
    decider.close()


def test_what_cannot_be_read_is_reported_by_the_owner(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Read before it was the owner, and again after the dead letter could not be reached."""
    owns, reported = threading.Event(), list[str]()

    def refuse(records: Sequence[Unreadable]) -> None:
        reported.extend(one.detail for one in records)
        if len(reported) == 1:
            raise KafkaUnreachable("no broker")

    decider = ReleaseDecider(settings, policies=lambda: [], is_owner=owns.is_set, unreadable=refuse)
    wrong = Outgoing(topic(settings.topic_prefix, "releases"), b"release/support", b"{")
    send_and_wait(producer(settings), [wrong], 30)
    wait_until(
        lambda: decider.step(0.2) and "release/support" in caplog.text, 60, "the record was read"
    )
    assert reported == []
    owns.set()
    with pytest.raises(KafkaUnreachable):
        decider.step(0.2)
    for _ in range(3):
        decider.step(0.2)
    assert len(reported) == 2
    assert len(set(reported)) == 1
    assert reported[0].startswith("release/support on the topic releases is ignored")
    decider.close()


def test_more_commands_than_one_transaction_takes(
    settings: Settings, releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others follow in log order."""
    monkeypatch.setattr(release_decider, "MAX_DECIDED", 2)
    commands = [command(release, expected) for expected, release in enumerate(releases)]
    for one in commands:
        send_promotion(settings, one)
    decider = a_decider(settings)
    assert settle(decider, settings, *commands) == ["accepted"] * 3
    decider.close()


def test_a_gate_of_a_policy(settings: Settings, releases: list[Release]) -> None:
    """Refused without a verdict; accepted with one, or with an override that is recorded."""
    policy = Policy.model_validate({"name": "careful", "promotion": {"gate": "evaluation"}})
    decider = a_decider(settings, [policy])
    refused = command(releases[0], 0)
    failed = command(
        releases[0], 0, verdicts=[{"gate": "evaluation", "outcome": "fail", "detail": "-9 %"}]
    )
    overridden = command(releases[0], 0, override="evaluation", reason="hotfix")
    for one in (refused, failed, overridden):
        send_promotion(settings, one)
    outcomes = settle(decider, settings, refused, failed, overridden)
    assert outcomes == ["refused", "refused", "accepted"]
    kept = read_log(settings).decisions("support")
    assert "policy careful requires the gate evaluation: it was not asked" in kept[0].why
    assert "it failed: -9 %" in kept[1].why
    assert (kept[2].promotion.override, kept[2].promotion.reason) == ("evaluation", "hotfix")
    decider.close()
