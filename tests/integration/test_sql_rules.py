"""Rules sql with a real worker, sinks and store: rows are alerts, errors are shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import stepstream
from stepstream.admin import documents, topics
from stepstream.admin.store import prepare_store
from stepstream.admin.yamlfile import Place
from stepstream.common.kafka import read_to_end
from stepstream.common.settings import to_environment
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.core.records import LogRecord
from tests.support.processes import Process, wait_until, worker


@pytest.fixture(scope="module")
def sinks(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, list[Process]]]:
    """A worker and two sinks of this module's own."""
    name, folder = f"sql_{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("sql")
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(folder),
        partitions=2,
        session_timeout="6s",
        sink_batch_interval="200ms",
        log_level="info",
    )
    topics.create_topics(given)
    prepare_store(given)
    running = [
        Process("stepstream", given, folder / f"sink-{number}.log", "sink") for number in (1, 2)
    ]
    running.append(worker(given, folder / "worker.log"))
    yield given, running[:2]
    for process in running:
        process.kill()


@pytest.fixture
def settings(sinks: tuple[Settings, list[Process]]) -> Settings:
    return sinks[0]


def apply(settings: Settings, *rules: dict[str, Any], name: str) -> None:
    policy = Policy.model_validate({"name": name, "rules": list(rules)})
    documents.apply(settings, [documents.Written(policy, Place(Path("p.yaml"), 1))])


def alerts(settings: Settings, where: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT subject, state, message, policy_revision, value FROM alerts WHERE {where}"
    with connect(settings, readonly=True) as client:
        return [tuple(row) for row in client.query(f"{sql} ORDER BY subject").result_rows]


def rule(query: str, alert: str) -> dict[str, Any]:
    return {"rule": "sql", "alert": alert, "every": "10s", "query": query}


def activated_at(sink: Process) -> str:
    """When the sink last began to run the rules, as in its log; empty when it never did."""
    lines = sink.log.read_text(errors="replace").splitlines()
    return max((line for line in lines if "rules sql are evaluated here" in line), default="")


def test_rows_are_alerts_until_they_are_gone_and_errors_are_shown(settings: Settings) -> None:
    """A good rule, and others: an unknown column, a file of the server, a huge result."""
    tracer = stepstream.Tracer(settings.model_copy(update={"project": "shop"}))
    for user in ("ada", "bob"):
        with tracer.run(agent="seller", user_id=user) as run, run.tool("search"):
            pass
    assert tracer.flush(20)
    tracer.close()
    query = (
        "SELECT user_id AS subject, project, agent, toFloat64(steps) AS value FROM runs "
        "WHERE agent = 'seller' AND closed"
    )
    apply(
        settings,
        rule(query, "sellers"),
        rule("SELECT nothing FROM runs", "wrong"),
        rule("SELECT * FROM file('/etc/passwd', 'LineAsString')", "theft"),
        # 90 MB of subjects: more than a rule may return.
        rule("SELECT repeat('x', 900000) || toString(number) FROM numbers(100)", "huge"),
        name="rows",
    )
    found = wait_until(lambda: alerts(settings, "alert = 'sellers'"), 120, "alerts of the rows")
    # The two runs may close between two evaluations: then the first finds one row.
    wait_until(lambda: len(alerts(settings, "alert = 'sellers'")) == 2, 120, "both alerts")
    assert found[0][:2] == ("ada", "firing")
    assert found[0][3:] == (1, 2.0)
    about_failures = "alert = 'rule-failed'"
    wait_until(
        lambda: len(alerts(settings, about_failures)) >= 3, 120, "the alerts about failed rules"
    )
    failed = alerts(settings, about_failures)
    assert [subject for subject, *_ in failed] == ["rows/huge", "rows/theft", "rows/wrong"]
    assert "nothing" in failed[2][2]
    apply(settings, rule(f"{query} AND user_id = 'ada'", "sellers"), name="rows")
    states = {("ada", "firing"), ("bob", "resolved")}
    wait_until(
        lambda: {row[:2] for row in alerts(settings, "alert = 'sellers'")} == states,
        120,
        "the resolved alert",
    )


def test_another_sink_takes_over_when_the_one_that_runs_them_is_killed(
    sinks: tuple[Settings, list[Process]],
) -> None:
    settings, running = sinks
    apply(settings, rule("SELECT 'before' AS subject", "taken-over"), name="over")
    wait_until(lambda: alerts(settings, "alert = 'taken-over'"), 120, "the alert before")
    # Log lines begin with the time, so the latest is the greatest text.
    active = max(running, key=activated_at)
    assert activated_at(active)
    active.kill()
    apply(settings, rule("SELECT 'after' AS subject", "taken-over"), name="over")
    wanted = {("after", "firing"), ("before", "resolved")}
    wait_until(
        lambda: wanted == {row[:2] for row in alerts(settings, "alert = 'taken-over'")},
        120,
        "the alert of the sink that took over",
    )


KILLED = """
import os, signal, sys
from stepstream.common import kafka
from stepstream.common.settings import load
from stepstream.sinks.batching.stats import SinkStats
from stepstream.sinks.clickhouse.sql_rules import LEADS, SqlRules

point, sent = sys.argv[1], kafka.send_and_wait

def send(client, outgoing, timeout):
    if point == "between two":
        sent(client, outgoing[:1], timeout)
    elif point != "before":
        sent(client, outgoing, timeout)
    if point == "never":
        print("sent", flush=True)
    else:
        os.kill(os.getpid(), signal.SIGKILL)

kafka.send_and_wait = send
stats = SinkStats()
stats.lag[LEADS] = 0  # as if it had the first partition of the findings
SqlRules(load(), stats)._thread.join(600)
"""


@pytest.mark.parametrize("point", ["before", "between two", "after"])
def test_a_sink_that_is_killed_while_it_reports_rows(settings: Settings, point: str) -> None:
    """Before, between and after its findings are sent: the sink that takes over sends what is
    missing, and nothing becomes a second alert.
    """
    place = settings.model_copy(
        update={"topic_prefix": f"{settings.topic_prefix}_{point[-3:].strip()}"}
    )
    topics.create_topics(place)
    query = "SELECT arrayJoin(['ada', 'bob']) AS subject, 'shop' AS project"
    apply(place, {**rule(query, "killed"), "every": "1h"}, name="killed")

    def sink(where: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, where],
            env=os.environ | to_environment(place) | {"PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            text=True,
        )

    with sink(point) as killed:
        assert killed.wait(240) == -signal.SIGKILL
    with sink("never") as next_one:
        assert next_one.stdout is not None
        assert next_one.stdout.readline() == "sent\n"
        next_one.kill()
    stage, opened = AlertPartition(0), list[str]()
    messages = read_to_end(place, topic(place.topic_prefix, "findings"))
    # The store is shared with the tests above: alerts of their rules are resolved as well.
    found = [one for one in messages if b'"alert":"killed"' in (one.value() or b"")]
    for offset, message in enumerate(found):
        record = LogRecord(offset, message.timestamp()[1], message.key(), message.value())
        stage.process(record)
        alerts = [output for output in stage.take_outputs() if output.topic == "alerts"]
        opened += [msgspec.json.decode(output.value or b"")["alert_id"] for output in alerts]
    # A repeated finding, with the same id, changes no alert: it has no further record.
    assert len(opened) == len(set(opened)) == 2
    assert len(found) == {"before": 2, "between two": 3, "after": 4}[point]
