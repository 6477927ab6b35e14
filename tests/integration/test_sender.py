"""The worker's sender over real Kafka: outputs that can wait are batched, urgent ones are not."""

from __future__ import annotations

import time
from random import Random

from benchmarks.bench import prepared
from stepstream.common.kafka import read_to_end
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.core.outputs import Output
from stepstream.stream.shell.sender import AT_ONCE, Sender
from tests.support.processes import wait_until


def values(settings: Settings, name: str) -> list[int]:
    """The numbers that are on a topic, in their order."""
    return [
        int(message.value() or b"")
        for message in read_to_end(settings, topic(settings.topic_prefix, name))
    ]


def test_what_is_urgent_overtakes_what_waits_for_others(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """A finding, and a state that others wait for, go at once; so do the first trajectories."""
    settings = prepared(kafka_bootstrap, topic_prefix)
    sender = Sender(settings)
    acknowledged: list[str] = []

    def note(output: Output, _offset: int) -> None:
        acknowledged.append(output.topic)

    for number in range(100):
        sender.send(Output("trajectories", b"run", b"%d" % number), note)
    sender.send(Output("findings", b"shop", b"1"), note)
    sender.send(Output("state", b"run", b"2", partition=0, urgent=True), note)
    wait_until(
        lambda: values(settings, "findings") == [1] and values(settings, "state") == [2],
        10,
        "what is urgent",
    )
    wait_until(
        lambda: len(values(settings, "trajectories")) == AT_ONCE, 10, "the first trajectories"
    )
    # What waits for its time must not be there yet; a slow machine only makes the wait longer.
    time.sleep(0.1)
    assert values(settings, "trajectories") == list(range(AT_ONCE))
    assert sender.in_flight == 102
    assert sender.flush(10)
    assert values(settings, "trajectories") == list(range(100))
    assert (sender.in_flight, len(acknowledged)) == (0, 102)


def test_outputs_to_one_topic_keep_their_order(kafka_bootstrap: str, topic_prefix: str) -> None:
    """However often acknowledgements are asked for; each is acknowledged at its own offset."""
    settings, chance = prepared(kafka_bootstrap, topic_prefix), Random(1)
    sender = Sender(settings)
    offsets: dict[bytes, int] = {}

    def note(output: Output, offset: int) -> None:
        offsets[output.value or b""] = offset

    for number in range(2_000):
        sender.send(Output("usage", b"shop", b"%d" % number), note)
        # Acknowledgements are handled at any moment between two records.
        if chance.random() < 0.02:
            sender.poll()
    assert sender.flush(10)
    assert values(settings, "usage") == list(range(2_000))
    assert sorted(offsets, key=lambda value: offsets[value]) == [
        b"%d" % number for number in range(2_000)
    ]
