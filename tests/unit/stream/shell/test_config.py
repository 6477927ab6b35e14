"""The documents in force: each key's newest readable record, and when rules are reevaluated."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any, cast

import pytest
from confluent_kafka import Message

from stepstream.schemas.settings import Settings
from stepstream.stream.shell.config import ConfigTopic, Documents

POLICY = {"kind": "Policy", "name": "p", "rules": [{"rule": "run_steps", "limit": 3}]}
PRICES = {
    "kind": "Prices",
    "name": "own",
    "models": [{"model": "m", "input_per_million": "1", "output_per_million": "2"}],
}
SUBSCRIPTION = {"kind": "Subscription", "name": "ops", "to": {"webhook": {"url": "http://x"}}}


@dataclass
class Kept:
    """A record of the config topic."""

    name: bytes | None
    content: bytes | None

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.content


def record(key: str, document: dict[str, Any] | bytes | None) -> Message:
    content = json.dumps(document).encode() if isinstance(document, dict) else document
    return cast(Message, Kept(key.encode(), content))


def policies(documents: Documents) -> list[str]:
    rules = documents.rule_book().rules_for("", "", "", "", "")
    return [item.policy for item in rules.applied if item.policy]


def test_a_policy_comes_changes_and_goes() -> None:
    """Each is reported as new; the same again is not."""
    documents = Documents()
    assert documents.apply([record("policy/p", POLICY)])
    assert policies(documents) == ["p"]
    assert not documents.apply([record("policy/p", POLICY)])
    assert documents.apply([record("policy/p", {**POLICY, "mode": "enforce"})])
    assert documents.apply([record("policy/p", None)])
    assert policies(documents) == []
    assert not documents.apply([record("policy/p", None)])


def test_prices_are_news_and_subscriptions_are_not() -> None:
    """The worker needs policies and prices; subscriptions do not concern it."""
    documents = Documents()
    assert documents.apply([record("prices/own", PRICES)])
    assert not documents.apply([record("subscription/ops", SUBSCRIPTION)])
    assert documents.price_book() is not None


@pytest.mark.parametrize(
    "broken",
    [b"no json", b"{}", b'{"kind": "Policy", "name": "p", "rules": [{"rule": "from_the_future"}]}'],
)
def test_a_document_that_cannot_be_read_leaves_the_one_before_in_force(broken: bytes) -> None:
    """A limit must not silently go away because of a rule that this worker does not know."""
    documents = Documents()
    documents.apply([record("policy/p", POLICY)])
    # The first has a good version in force, the second one never had any.
    assert not documents.apply([record("policy/p", broken), record("policy/q", broken)])
    assert policies(documents) == ["p"]


def test_it_is_never_closed_while_it_is_polled() -> None:
    """Closing a consumer under a poll in another thread crashes the process."""
    followed = ConfigTopic(Settings(kafka_brokers="127.0.0.1:1"))
    states: list[str] = []

    class Consumer:
        def consume(self, _count: int, timeout: float) -> list[Any]:
            states.append("polling")
            time.sleep(timeout)
            states.append("polled")
            return []

        def close(self) -> None:
            states.append("closed")

    vars(followed)["_consumer"] = Consumer()
    thread = threading.Thread(target=followed.poll, args=(0.2,))
    thread.start()
    while not states:
        time.sleep(0.001)
    followed.close()
    thread.join()
    assert states == ["polling", "polled", "closed"]
    assert followed.poll(0.1) == []
    assert states[-1] == "closed"
