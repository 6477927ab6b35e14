"""What becomes of records: steps, starts, runs, alerts, repeats, bad ones, refused ones; prices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from stepstream.common import kafka
from stepstream.schemas.alert import Alert
from stepstream.schemas.delivery import Delivery, delivery_key
from stepstream.schemas.documents import ModelPrice, Prices, document_key
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.schemas.trajectory import PathStep, Trajectory
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.processes import wait_until
from tests.support.sink import (
    SinkThread,
    Steps,
    assert_stored,
    create_topics,
    encoded,
    lag,
    send,
    small_batches,
    wait_stored,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    """A store with its schema, and the topics."""
    settings = small_batches(kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database)
    migrate(settings)
    create_topics(settings)
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Client]:
    """A client of the store."""
    client = connect(settings)
    yield client
    client.close()


def rows(client: Client, sql: str) -> list[dict[str, Any]]:
    """A query's rows by column name."""
    return list(client.query(sql).named_results())


def dead_letters(settings: Settings) -> list[Message]:
    """What lies on the dead-letter topic."""
    return list(kafka.read_to_end(settings, topic(settings.topic_prefix, "deadletter")))


def step(**fields: Any) -> dict[str, Any]:
    """An ended step."""
    now = time.time_ns() // 1_000
    plain = {
        "trace_id": TRACE,
        "step_id": "00f067aa0ba902b7",
        "kind": "plan",
        "name": "think",
        "start_time": now,
        "end_time": now,
    }
    return plain | fields


def send_steps(settings: Settings, *steps: dict[str, Any]) -> None:
    """Send steps under their own keys."""
    send(settings, [(item["trace_id"], encoded(item)) for item in steps])


def test_every_field_of_a_step_comes_back_under_its_own_name(
    settings: Settings, store: Client
) -> None:
    """A SELECT returns each field of a step as it was sent."""
    now = time.time_ns() // 1_000
    sent = {
        "trace_id": TRACE,
        "step_id": "00f067aa0ba902b7",
        "parent_step_id": "00f067aa0ba902b6",
        "phase": "end",
        "kind": "llm_call",
        "name": "answer",
        "tool": "t",
        "model": "gpt-4o",
        "provider": "openai",
        "project": "shop",
        "environment": "prod",
        "agent": "support",
        "agent_version": "v12",
        "task": "refund",
        "session_id": "s-7",
        "user_id": "u-9",
        "status": "error",
        "error_type": "Timeout",
        "error_message": "it took\ttoo 'long'",
        "attempt": 2,
        "retry_of": "00f067aa0ba902b5",
        "fallback_of": "00f067aa0ba902b4",
        "input": "Größe? \\ \n",
        "output": '{"a": 1}',
        "input_bytes": 17,
        "output_bytes": 9_000_000_000,
        "tool_schema": "lookup@3",
        "attributes": {"a": "b", "": "empty key"},
        "cost_source": "given",
        "price_version": "list@1",
    }
    usage = {
        "input_tokens": 5,
        "output_tokens": 7,
        "cached_input_tokens": 3,
        "cache_write_tokens": 1,
        "reasoning_tokens": 2,
    }
    documents = [
        {"id": "d1", "score": 0.25, "content": "text"},
        {"id": "d2", "score": None, "content": ""},
    ]
    times = {"start_time": now - 1_234_567, "end_time": now, "first_token_time": now - 7}
    send_steps(
        settings, sent | times | {"usage": usage, "cost_usd": "0.123456789", "documents": documents}
    )
    with SinkThread(settings):
        wait_until(lambda: bool(rows(store, "SELECT 1 FROM steps")), 180, "the step stored")
    (found,) = rows(store, "SELECT * FROM steps")
    assert {name: found[name] for name in sent} == sent
    assert {name: found[name] for name in usage} == usage
    assert found["documents"] == documents
    assert found["cost_usd"] == Decimal("0.123456789")
    assert {name: round(found[name].timestamp() * 1_000_000) for name in times} == times
    assert found["duration_us"] == 1_234_567
    assert (found["schema_version"], found["kafka_partition"], found["kafka_offset"]) == (1, 0, 0)


def test_a_start_is_open_until_its_end_comes(settings: Settings, store: Client) -> None:
    """A started step is in open_steps and, as running, in trace(); when its end is there, only the
    end is.
    """
    begun = step(phase="start", input="what?")
    send_steps(settings, begun)
    with SinkThread(settings):
        wait_until(lambda: bool(rows(store, "SELECT 1 FROM open_steps")), 180, "the start stored")
        (found,) = rows(store, f"SELECT * FROM trace(id = '{TRACE}')")
        assert (found["status"], found["phase"], found["end_time"], found["input"]) == (
            "running",
            "start",
            None,
            "what?",
        )
        assert rows(store, "SELECT * FROM steps") == []
        send_steps(settings, begun | {"phase": "end", "status": "ok"})
        wait_until(lambda: bool(rows(store, "SELECT 1 FROM steps")), 180, "the end stored")
    assert rows(store, "SELECT * FROM open_steps") == []
    (found,) = rows(store, f"SELECT * FROM trace(id = '{TRACE}')")
    assert (found["status"], found["phase"], found["offset_us"]) == ("ok", "end", 0)


def test_what_comes_again_counts_once_also_after_a_restart(settings: Settings) -> None:
    """A step sent again at a new offset is in no rollup twice: in one batch, in another, or after
    another sink took over.
    """
    steps = Steps()
    first = [record for _ in range(5) for record in steps.run(10)]
    # Twice in one batch, and below once more in a later one and after a restart.
    send(settings, first + first)
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
        send(settings, first)
        wait_until(lambda: stats.skipped["steps", "duplicate"] == 100, 180, "100 repeats left out")
    send(settings, first + steps.run(10))
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
        wait_until(lambda: stats.skipped["steps", "duplicate"] == 50, 180, "50 repeats left out")
    assert_stored(settings, steps.sent)


def test_bad_records_are_left_out_and_stop_nothing(settings: Settings) -> None:
    """What accept rejects is counted by reason and skipped; it is the worker that dead-letters
    it.
    """
    steps = Steps()
    now = time.time_ns() // 1_000
    bad = [
        (TRACE, b"{"),
        (TRACE, b""),
        (TRACE, encoded(step(start_time=-1, end_time=-1))),
        (TRACE, encoded(step(start_time=now - 40 * 86_400_000_000))),
        ("0" * 31 + "1", encoded(step())),
    ]
    # Before and after good ones: both ends of a batch are offsets of records without a row.
    send(settings, bad + steps.run(10) + bad)
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
        wait_until(lambda: lag(settings) == 0, 180, "everything committed")
    reasons = {reason: count for (name, reason), count in stats.skipped.items() if name == "steps"}
    assert reasons == {
        "malformed_json": 2,
        "empty": 2,
        "time_out_of_range": 4,
        "foreign_key": 2,
        "ended": 10,
    }
    assert dead_letters(settings) == []


def test_a_row_that_the_store_refuses_goes_to_the_dead_letter_and_blocks_no_other(
    settings: Settings, store: Client
) -> None:
    """The refused record is dead-lettered with ClickHouse's words; every other row of its batch is
    stored once.
    """
    # A refusal that no check of ours foresees.
    store.command("ALTER TABLE steps_raw ADD CONSTRAINT no_poison CHECK name != 'poison'")
    steps = Steps()
    poison = step(name="poison")
    send(settings, [record for _ in range(5) for record in steps.run(10)])
    # In the middle: what is halved has rows on both sides.
    send_steps(settings, poison)
    send(settings, [record for _ in range(5) for record in steps.run(10)])
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
        wait_until(lambda: lag(settings) == 0, 180, "everything committed")
    assert stats.dead_lettered["steps"] == 1
    assert_stored(settings, steps.sent)
    (letter,) = dead_letters(settings)
    headers = dict(letter.headers() or [])
    assert letter.value() == encoded(poison)
    assert letter.key() == TRACE.encode()
    assert (
        headers["stepstream-topic"],
        headers["stepstream-offset"],
        headers["stepstream-by"],
    ) == (b"steps", b"100", b"sink")
    assert headers["stepstream-reason"] == b"store_refused"
    assert b"no_poison" in (headers["stepstream-detail"] or b"")
    assert headers["content-type"] == b"application/json"


def test_costs_are_given_priced_or_unknown(settings: Settings, store: Client) -> None:
    """A given cost stands; tokens are priced by the documents in force, as they change; without a
    price it is unknown.
    """
    tokens = {"usage": {"input_tokens": 1_000_000}, "provider": "acme", "kind": "llm_call"}

    def publish(price: str) -> None:
        document = Prices(
            name="ours",
            models=(
                ModelPrice.model_validate(
                    {"model": "m1", "input_per_million": price, "output_per_million": "1"}
                ),
            ),
        )
        send(settings, [(document_key(document), document.model_dump_json().encode())], "config")

    publish("2.5")
    with SinkThread(settings):
        send_steps(settings, step(step_id="0000000000000001", model="m1", **tokens))
        send_steps(settings, step(step_id="0000000000000002", model="unheard-of", **tokens))
        send_steps(settings, step(step_id="0000000000000003", model="m1", cost_usd="7", **tokens))
        send_steps(settings, step(step_id="0000000000000004"))
        wait_until(lambda: len(rows(store, "SELECT 1 FROM steps")) == 4, 180, "four steps stored")
        publish("3")
        found: list[Any] = []
        for number in range(5, 1_000):  # until the new price is known
            send_steps(settings, step(step_id=f"{number:016x}", model="m1", **tokens))
            time.sleep(0.1)
            found = rows(
                store,
                "SELECT DISTINCT cost_usd FROM steps WHERE model = 'm1' AND cost_source = 'priced'",
            )
            if len(found) == 2:
                break
        assert {row["cost_usd"] for row in found} == {Decimal("2.5"), Decimal(3)}
    costs = rows(
        store,
        "SELECT cost_usd, cost_source, price_version FROM steps "
        "WHERE step_id <= '0000000000000004' ORDER BY step_id",
    )
    assert [(row["cost_usd"], row["cost_source"]) for row in costs] == [
        (Decimal("2.5"), "priced"),
        (None, "unpriced"),
        (Decimal(7), "given"),
        (None, ""),
    ]
    assert costs[0]["price_version"].startswith("ours@")
    assert rows(store, "SELECT sum(unpriced_steps) AS n FROM metrics_1m") == [{"n": 1}]


def test_a_run_is_its_highest_revision(settings: Settings, store: Client) -> None:
    """Revisions may come in any order, in one batch or in several; the view shows the highest."""
    now = time.time_ns() // 1_000
    base = {
        "trace_id": TRACE,
        "project": "shop",
        "agent": "support",
        "start_time": now,
        "end_time": now + 5,
        "first_append_time": now,
        "last_append_time": now,
        "tools": ["a", "b"],
        "cost_usd": "1.000000001",
        "path": [
            PathStep(step_id="1" * 16, kind="agent", name="support"),
            PathStep(
                step_id="2" * 16, parent_step_id="1" * 16, kind="plan", name="p", status="error"
            ),
        ],
    }

    def publish(revision: int, status: str) -> None:
        run = Trajectory.model_validate(
            base
            | {
                "revision": revision,
                "status": status,
                "closed": status != "running",
                "steps": revision,
            }
        )
        send(settings, [(TRACE, run.model_dump_json().encode())], "trajectories")

    # The oldest, the newest, and one that a replaced worker sends late.
    for revision, status in ((1, "running"), (9, "ok"), (4, "running")):
        publish(revision, status)
    send(settings, [(TRACE, b"")], "trajectories")
    with SinkThread(settings) as stats:
        wait_until(
            lambda: bool(rows(store, "SELECT 1 FROM runs WHERE revision = 9")),
            180,
            "the run stored",
        )
        publish(6, "running")
        wait_until(
            lambda: stats.read["trajectories"] == 5 and lag(settings, "trajectories") == 0,
            60,
            "everything committed",
        )
        send(settings, [(TRACE, b'{"trace_id": 7}')], "trajectories")
        wait_until(
            lambda: stats.dead_lettered["trajectories"] == 1,
            60,
            "what is no trajectory dead-lettered",
        )
    (found,) = rows(store, "SELECT * FROM runs")
    assert (found["revision"], found["status"], found["closed"], found["steps"]) == (
        9,
        "ok",
        True,
        9,
    )
    assert (found["cost_usd"], found["tools"]) == (Decimal("1.000000001"), ["a", "b"])
    assert found["path"] == ["agent support", "plan p"]
    assert '"parent_step_id":"1111111111111111"' in found["path_json"]


def test_an_alert_is_its_highest_seq_and_every_change_is_kept(
    settings: Settings, store: Client
) -> None:
    """alerts shows each alert as it stands, alert_events every change once, however often a record
    comes.
    """
    now = time.time_ns() // 1_000
    alert = Alert(
        alert_id="a1",
        seq=1,
        state="firing",
        severity="critical",
        alert="too-expensive",
        rule="run_cost",
        project="shop",
        value=1.5,
        unit="usd",
        step_ids=["s1", "s2"],
        opened_at=now,
        updated_at=now,
    )
    resolved = alert.model_copy(
        update={"seq": 2, "state": "resolved", "updated_at": now + 5, "resolved_at": now + 5}
    )
    for item in (alert, resolved, alert):
        send(settings, [(item.alert_id, item.model_dump_json().encode())], "alerts")
    with SinkThread(settings):
        wait_until(lambda: lag(settings, "alerts") == 0, 180, "everything committed")
    assert [
        (row["seq"], row["state"]) for row in rows(store, "SELECT * FROM alert_events ORDER BY seq")
    ] == [
        (1, "firing"),
        (2, "resolved"),
    ]
    (found,) = rows(store, "SELECT * FROM alerts")
    assert (found["seq"], found["state"], found["value"], found["threshold"]) == (
        2,
        "resolved",
        1.5,
        None,
    )
    assert (found["step_ids"], found["silenced_until"]) == (["s1", "s2"], None)
    assert round(found["resolved_at"].timestamp() * 1_000_000) == now + 5


def test_deliveries_are_a_log_and_how_they_stand(settings: Settings, store: Client) -> None:
    """delivery_events holds every record once, deliveries the newest of each alert and
    subscription.
    """
    now = time.time_ns() // 1_000
    first = Delivery(
        subscription="ops",
        alert_id="a1",
        seq=1,
        state="failed",
        time=now,
        channel="webhook",
        attempts=1,
        next_try=now + 5,
        reason="503",
        alert="too-expensive",
        project="shop",
        severity="critical",
    )
    delivered = first.model_copy(
        update={
            "state": "delivered",
            "attempts": 2,
            "next_try": 0,
            "reason": "",
            "told_at": now + 7,
        }
    )
    other = first.model_copy(update={"subscription": "dev"})
    for item in (first, delivered, other):
        send(
            settings,
            [(delivery_key(item.subscription, "a1"), item.model_dump_json().encode())],
            "deliveries",
        )
    send(settings, [("ops|a1", b"no delivery")], "deliveries")
    with SinkThread(settings):
        wait_until(lambda: lag(settings, "deliveries") == 0, 180, "everything committed")
    log = rows(
        store, "SELECT * FROM delivery_events WHERE subscription = 'ops' ORDER BY kafka_offset"
    )
    assert [(line["state"], line["attempts"], line["reason"]) for line in log] == [
        ("failed", 1, "503"),
        ("delivered", 2, ""),
    ]
    stand = {line["subscription"]: line for line in rows(store, "SELECT * FROM deliveries")}
    assert (stand["ops"]["state"], stand["ops"]["next_try"], stand["dev"]["state"]) == (
        "delivered",
        None,
        "failed",
    )
    assert round(stand["ops"]["told_at"].timestamp() * 1_000_000) == now + 7
    assert [
        dict(letter.headers() or [])["stepstream-reason"] for letter in dead_letters(settings)
    ] == [b"invalid_field"]


def test_what_lay_in_kafka_for_too_long_is_dead_lettered(settings: Settings, store: Client) -> None:
    """By its project's retention: neither rows that vanish nor rollups that know more than the
    rows, however many there are.
    """
    own = settings.model_copy(update={"retention_by_project": "dev.steps=2"})
    admin = AdminClient(own.kafka)
    name = topic(own.topic_prefix, "steps")
    config = {"message.timestamp.type": "CreateTime"}
    change = ConfigResource(
        ConfigResource.Type.TOPIC,
        name,
        incremental_configs=[
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ],
    )
    admin.incremental_alter_configs([change])[change].result(30)
    producer = kafka.producer(own)
    arrived_ms = time.time_ns() // 1_000_000 - 3 * 86_400_000
    # More than the fuse lets pass of records that something is wrong with.
    for number in range(150):
        # Three days old: too old for dev (2 days), not for shop (30).
        item = step(step_id=f"{number + 1:016x}", project="shop" if number % 10 == 0 else "dev")
        item |= {"start_time": arrived_ms * 1_000, "end_time": arrived_ms * 1_000}
        producer.produce(name, encoded(item), item["trace_id"], timestamp=arrived_ms)
    assert producer.flush(30) == 0
    with SinkThread(own) as stats:
        wait_until(lambda: lag(own) == 0, 180, "everything committed")
    # Nine in ten of 150.
    assert stats.dead_lettered["steps"] == 135
    for counted in (
        "count() FROM steps",
        "sum(steps) FROM metrics_1m",
        "sum(steps) FROM metrics_1h",
    ):
        assert store.command(f"SELECT {counted}") == 15
    assert {dict(letter.headers() or [])["stepstream-reason"] for letter in dead_letters(own)} == {
        b"expired"
    }
