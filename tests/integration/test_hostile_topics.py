"""Bad records on every topic that a worker reads at its start, and dead letters written once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepstream.admin import deadletter
from stepstream.common.kafka import read_to_end
from stepstream.common.letters import letter_source
from stepstream.schemas.topics import topic
from tests.support.worker_world import World, now_us, step, trace

BAD: list[tuple[str, bytes, bytes]] = [
    ("state", b"!poison|steps|0|9", b"x"),
    ("state", b"!poison|steps|0|9", b'{"offset": "x"}'),
    ("state", b"!fuse|steps|0", b"\xff"),
    ("state", b"a" * 32, b"x"),
    ("state", b"b" * 32, b"\x02\x91\x01"),
    ("state", b"c" * 32, b"\x02" + b"\x91" * 5_000),
    ("state", b"no run", b"\x02\xc0"),
    ("alerts", b"k", b'{"alert_id":5}'),
    ("alerts", b"k2", b"\xff\xfe"),
    ("alerts", b"k3", b"[" * 10_000),
    ("fleet", b"x", b"{}"),
    ("fleet", b"p|window|e|a|v|t|u|0|1", b'{"project":"p","start":0,"end":1e300}'),
    (
        "fleet",
        b"p|window|e|a|v|t|u|0|2",
        b'{"project":"p","start":0,"end":3600000000,"minutes":[{"minute":1,"latency":{"x":1}}]}',
    ),
    (
        "fleet",
        b"p|learnt|e|a|t|1",
        b'{"project":"p","day":1,"settled_until":1,"amounts":{"steps":{"low":0,"counts":[1e99]}}}',
    ),
    ("fleet", b"p|baseline|e|a|t", b'{"project":"p","as_of":1,"values":{"steps":[1]},"shares":[]}'),
    ("fleet", b"!poison|findings|0|9", b"x"),
    ("fleet", b"!poison|usage|0|9", b"x"),
    ("fleet", b"!windows|7", b'{"version":1,"through":"x"}'),
    ("config", b"policy/p", b"{"),
    ("config", b"prices/q", b'{"kind":"Prices","models":[{"input_per_million":1e999}]}'),
    ("config", b"\xff", b"[" * 10_000),
]


@pytest.fixture
def world(kafka_bootstrap: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka_bootstrap, tmp_path, partitions=1, fleet_partitions=2)
    yield made
    made.collected.close()
    if made.starts:
        made.process.kill()


def letters(world: World) -> Counter[tuple[str, int, int]]:
    """How often each place is in the dead letter."""
    name = topic(world.settings.topic_prefix, "deadletter")
    return Counter(
        source
        for message in read_to_end(world.settings, name)
        if (source := letter_source(message)) is not None
    )


def run_closes(world: World) -> None:
    root = trace()
    world.send(step(root, 1, "start"), step(root, 1))
    world.final(root)


def test_what_cannot_be_read_at_the_start_is_skipped_and_dead_lettered_once(world: World) -> None:
    for name, key, value in BAD:
        world._send(name, value, key, partition=0)
    world.start()
    run_closes(world)
    # Those are the sink's, for a while.
    wanted = Counter(name for name, _, _ in BAD if name != "alerts")
    found = letters(world)
    assert Counter(name for name, _, _ in found) == wanted, found
    for _ in range(2):
        world.process.kill()
        world.start()
        run_closes(world)
    assert set(letters(world).values()) == {1}
    assert Counter(name for name, _, _ in letters(world)) == wanted


def test_refused_steps_lie_in_the_dead_letter_once_through_kills(world: World) -> None:
    """An open run keeps the safe offset back, so a killed worker reads what it refused again."""
    world.start()
    open_run = trace()
    world.send(step(open_run, 1, "start"))
    for number in range(5):
        world.raw(b"no step %d" % number, b"key")
    world._send("usage", b"{}", b"p", partition=0)
    world._send("findings", b"{}", b"p", partition=0)
    world.wait_for_record("deadletter", lambda _record: letters(world).total() >= 7, 20)
    for _ in range(2):
        world.process.kill()
        world.start()
        run_closes(world)
    assert letters(world).total() == 7
    assert set(letters(world).values()) == {1}


def test_letters_that_were_sent_twice_are_listed_once(world: World) -> None:
    headers = [
        ("stepstream-topic", b"steps"),
        ("stepstream-partition", b"0"),
        ("stepstream-offset", b"5"),
    ]
    for number in range(3):
        world._send("deadletter", b"v", b"k", headers=headers)
        world._send(
            "deadletter",
            b"v",
            b"k",
            headers=[*headers[:2], ("stepstream-offset", b"%d" % (7 + number))],
        )
        world._send("deadletter", b"v", b"k", headers=[])
    found = [letter.source_offset for letter in deadletter.read(world.settings)]
    assert sorted(found) == [-1, -1, -1, 5, 7, 8, 9]


def test_usage_that_costs_no_number_is_refused_without_a_restart(world: World) -> None:
    world.start()
    minute = now_us() // 60_000_000 * 60_000_000
    record: dict[str, Any] = {
        "project": "p",
        "trace_id": trace(),
        "revision": 1,
        "minute": minute,
        "cost_usd": "abc",
    }
    for _ in range(7):
        world._send("usage", msgspec.json.encode(record), b"p", partition=0)
    run_closes(world)
    world.wait_for_record("deadletter", lambda _record: letters(world).total() == 7, 20)
    assert world.process.running
