"""Runs the rules ``sql`` of policies in a sink: queries on a schedule, findings to Kafka.

Every sink has the thread; the one that owns the first partition of the topic findings is active, so
that Kafka's consumer group decides which. When ownership moves, two may run the same evaluation
for a moment: both then write findings with the same ids, which count once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException

from stepstream.common import kafka
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.store_rules.sql import LABELS, OpenAlert, Sql, SqlRows, over
from stepstream.schemas.times import HOUR_US, SECOND_US
from stepstream.schemas.topics import topic
from stepstream.sinks.batching.stats import SinkStats
from stepstream.sinks.clickhouse.client import connect
from stepstream.sinks.clickhouse.errors import StoreError, first_line

CHECK_S: Final = 1.0
SEND_S: Final = 30.0
MEMORY_BYTES: Final = 1_000_000_000
"""Memory that a query may use."""
RESULT_BYTES: Final = 64_000_000
"""Size of a query's result, which the sink has in memory."""
LEADS: Final = ("findings", 0)
_encode = msgspec.json.Encoder().encode
logger = logging.getLogger("stepstream.sink")

_OPEN: Final = (
    f"SELECT alert_id, policy, alert, subject, {', '.join(LABELS)} FROM alerts "
    "WHERE rule = 'sql' AND state = 'firing'"
)


@dataclass(frozen=True, slots=True)
class Due:
    """An evaluation of a rule, and the time at which it was due."""

    policy: Policy
    rule: Sql
    slot_us: int


class Schedule:
    """Which rules are due. Pure; times are multiples of each rule's interval."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str, int], int] = {}

    def due(self, policies: Iterable[Policy], now_us: int) -> list[Due]:
        """The rules that are due since they were evaluated last; a new one is due at once."""
        found, known = [], {}
        for policy in policies:
            for rule in policy.rules:
                if not isinstance(rule, Sql) or not rule.enabled:
                    continue
                key = (policy.name, rule.alert_name, policy.revision)
                slot_us = now_us - now_us % rule.every
                known[key] = slot_us
                if self._done.get(key) != slot_us:
                    found.append(Due(policy, rule, slot_us))
        self._done = known
        return found


class SqlRules:
    """The thread. It reads the policies from the config topic, as the worker does."""

    def __init__(self, settings: Settings, stats: SinkStats) -> None:
        self._settings = settings
        self._stats = stats
        self._documents = DocumentSet()
        self._schedule = Schedule()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stepstream-rules", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a query that runs is not waited for."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        follower = kafka.Follower(self._settings, topic(self._settings.topic_prefix, "config"))
        has_read = is_active = False
        while not self._stop.wait(CHECK_S):
            try:
                self._apply(follower.poll(0) if has_read else follower.read_all())
                has_read = True
                was_active, is_active = is_active, LEADS in self._stats.lag
                if is_active and not was_active:
                    logger.info("rules sql are evaluated here from now on")
                if is_active:
                    self._evaluate_due(time.time_ns() // 1_000)
                else:
                    # What another sink has evaluated is not due again when this one takes over.
                    self._schedule = Schedule()
            except (kafka.KafkaUnreachable, KafkaException, StoreError, ClickHouseError) as error:
                self._schedule = Schedule()  # all of them are due again
                logger.warning("rules sql were not evaluated: %s", first_line(error))
            except Exception:
                logger.exception("rules sql failed and are tried again")
        follower.close()

    def _apply(self, messages: Iterable[Any]) -> None:
        for message in messages:
            try:
                self._documents.apply(message.key(), message.value())
            except UnreadableDocument:
                continue  # the worker reports it

    def _evaluate_due(self, now_us: int) -> None:
        policies = list(self._documents.of(Policy))
        due = self._schedule.due(policies, now_us)
        if not due:
            return
        known = self._open_alerts()
        findings: list[FindingStruct] = []
        for one in due:
            findings += evaluate(self._settings, one, known, self._stats, now_us)
        findings += self._without_rule(policies, known, now_us)
        self._send(findings)

    def _open_alerts(self) -> list[OpenAlert]:
        client = connect(self._settings, readonly=True, timeout_s=30)
        try:
            rows = client.query(_OPEN).named_results()
            return [
                OpenAlert(
                    str(row["alert_id"]),
                    str(row["policy"]),
                    str(row["alert"]),
                    {name: str(row[name]) for name in LABELS},
                    str(row["subject"]),
                )
                for row in rows
            ]
        finally:
            client.close()

    def _without_rule(
        self, policies: Iterable[Policy], known: Iterable[OpenAlert], now_us: int
    ) -> Iterator[FindingStruct]:
        asked = {
            (policy.name, rule.alert_name)
            for policy in policies
            for rule in policy.rules
            if isinstance(rule, Sql) and rule.enabled
        }
        for one in known:
            if (one.policy, one.alert) not in asked:
                yield over(one, now_us, now_us, "no rule applies to this any more")

    def _send(self, findings: list[FindingStruct]) -> None:
        if not findings:
            return
        client = kafka.producer(self._settings, **{"message.timeout.ms": round(SEND_S * 1_000)})
        name = topic(self._settings.topic_prefix, "findings")
        outgoing = [
            kafka.Outgoing(name, finding.project.encode(), _encode(finding), [])
            for finding in findings
        ]
        kafka.send_and_wait(client, outgoing, SEND_S + 5)


def evaluate(
    settings: Settings,
    due: Due,
    known: Iterable[OpenAlert],
    stats: SinkStats,
    now_us: int,
) -> list[FindingStruct]:
    """Run a rule's query as the reading user; returns its findings, or the one about its failure.

    Raises ``StoreError`` where the store cannot be reached.
    """
    rule, name = due.rule, due.rule.alert_name
    stats.rule_evaluations[name] += 1
    mine = [one for one in known if (one.policy, one.alert) == (due.policy.name, name)]
    client = connect(settings, readonly=True, timeout_s=round(rule.timeout / SECOND_US) + 5)
    try:
        result = client.query(rule.statement, settings=limits(client, rule))
        columns = result.column_names
        rows = [dict(zip(columns, row, strict=True)) for row in result.result_rows]
        return list(SqlRows(rule, due.policy).findings(rows, mine, due.slot_us, now_us))
    except Exception as error:
        # Whatever it is: one rule must not stop those that are due after it.
        stats.rule_errors[name] += 1
        logger.warning("rule %s of policy %s failed: %s", name, due.policy.name, first_line(error))
        return [_failed(due, first_line(error), now_us)]
    finally:
        client.close()


def limits(client: Client, rule: Sql) -> dict[str, Any]:
    """The limits of a query, as far as the reading user may set them; the server has its own."""
    wanted = {
        "max_execution_time": max(1, rule.timeout // SECOND_US),
        "max_memory_usage": MEMORY_BYTES,
        "max_result_rows": rule.max_rows + 1,
        "max_result_bytes": RESULT_BYTES,
        "max_threads": 1,
    }
    found = {}
    for name, value in wanted.items():
        setting = client.server_settings.get(name)
        if setting is None or not setting.readonly:
            found[name] = value
    return found


def _failed(due: Due, why: str, now_us: int) -> FindingStruct:
    """The finding about a query that failed; one an hour."""
    name, policy = due.rule.alert_name, due.policy.name
    return pipeline_finding(
        "rule-failed",
        "rule_failed",
        f"{policy}/{name}",
        f"the query of rule {name} of policy {policy} failed: {why[:400]}; it is run again every "
        "time it is due",
        now_us,
        names=("rule-failed", policy, name, now_us - now_us % HOUR_US),
    )
