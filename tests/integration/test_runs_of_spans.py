"""Runs that are made of spans, from the gateway to SQL: roots elsewhere, usage that is reported
twice, contents in log records.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from stepstream.local import supervisor
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.support.gateway import PROTOBUF, post
from tests.support.otlp import any_value, pairs, request_of, span
from tests.support.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REMOTE_PARENT = 0x300
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "shopper"}
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.provider.name": "openai",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
WAIT_S = 240


class World:
    """A pipeline, and what SQL finds in it."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.url = f"http://{settings.gateway_host}:{settings.gateway_port}"
        self.client = client

    def send(self, trace_id: str, *spans: tuple[int, int, dict[str, Any]], flags: int = 0) -> None:
        """Send spans of one trace, in one request: number, parent, attributes."""
        now = time.time_ns()
        made = [
            span(
                number,
                parent,
                trace_id=trace_id,
                attributes=attributes,
                start_ns=now - 3_000_000 + number * 1_000,
                end_ns=now - 1_000_000,
                # Only the topmost span of a request may have its parent elsewhere.
                flags=flags if not place else 0,
            )
            for place, (number, parent, attributes) in enumerate(spans)
        ]
        answer = post(self.url, "/v1/traces", request_of(made).SerializeToString(), PROTOBUF)
        assert answer.status == 200

    def log(
        self, trace_id: str, number: int, name: str, body: dict[str, Any], project: str
    ) -> None:
        """Send a log record of a span."""
        request = ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.attributes.extend(pairs({"stepstream.project": project}))
        group.scope_logs.add().log_records.add(
            time_unix_nano=time.time_ns() - 1_000_000,
            trace_id=bytes.fromhex(trace_id),
            span_id=number.to_bytes(8, "big"),
            event_name=name,
            body=any_value(body),
        )
        answer = post(self.url, "/v1/logs", request.SerializeToString(), PROTOBUF)
        assert answer.status == 200

    def row(self, query: str, trace_id: str) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.client.query(query, parameters={"run": trace_id}).named_results()
        return dict(row)

    def run(self, trace_id: str, **wanted: Any) -> dict[str, Any]:
        """Wait until a run has these values in SQL; returns its row."""
        query = "SELECT * FROM runs WHERE trace_id = {run:String}"

        def rows() -> list[dict[str, Any]]:
            found = self.client.query(query, parameters={"run": trace_id}).named_results()
            return [row for row in found if wanted.items() <= row.items()]

        wait_until(lambda: bool(rows()), WAIT_S, f"a run with {wanted}")
        return rows()[0]


@pytest.fixture(scope="module")
def world(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    name = f"spans_{uuid.uuid4().hex[:8]}"
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(tmp_path_factory.mktemp("spans")),
        partitions=2,
        quiet=True,
        # Only the end of its root closes a run.
        rootless_idle="10m",
    )
    with pytest.MonkeyPatch.context() as patch:
        # A loaded machine may take longer to start everything than a user would wait.
        patch.setattr(supervisor, "READY_S", 300.0)
        with Pipeline(given) as pipeline, connect(pipeline.settings) as client:
            yield World(pipeline.settings, client)


def test_a_run_without_its_root_closes_and_is_corrected_by_what_comes_later(world: World) -> None:
    """First by the agent's span, whose parent is elsewhere; then a second one; then the root."""
    trace_id = secrets.token_hex(16)
    unnamed = CALL | {"gen_ai.agent.name": ""}
    world.send(trace_id, (2, 1, AGENT), (3, 2, unnamed), flags=REMOTE_PARENT)
    run = world.run(trace_id, closed=True)
    assert run["provisional"]
    assert (run["status"], run["agent"], run["root_step_id"]) == ("ok", "shopper", f"{2:016x}")
    world.send(trace_id, (5, 1, AGENT), (6, 5, CALL), flags=REMOTE_PARENT)
    run = world.run(trace_id, closed=True, steps=4)
    assert (run["provisional"], run["root_step_id"]) == (True, f"{2:016x}")
    web = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "web"}
    world.send(trace_id, (1, 0, web))
    run = world.run(trace_id, closed=True, steps=5)
    assert (run["provisional"], run["agent"], run["root_step_id"]) == (False, "web", f"{1:016x}")
    assert (run["orphan_steps"], run["input_tokens"]) == (0, 200)
    flags = world.client.query(
        "SELECT step_id FROM steps WHERE trace_id = {run:String} AND parent_remote "
        "ORDER BY step_id",
        parameters={"run": trace_id},
    ).result_rows
    assert [row[0] for row in flags] == [f"{2:016x}", f"{5:016x}"]


def test_a_run_of_spans_without_flags_is_shown_as_closed_until_more_comes(world: World) -> None:
    """Long before it closes by ``rootless_idle``."""
    trace_id = secrets.token_hex(16)
    world.send(trace_id, (2, 1, AGENT), (3, 2, CALL))
    run = world.run(trace_id, closed=True)
    assert (run["provisional"], run["status"], run["steps"]) == (True, "ok", 2)
    world.send(trace_id, (1, 0, {"gen_ai.operation.name": "invoke_agent"}))
    run = world.run(trace_id, closed=True, steps=3)
    assert (run["provisional"], run["root_step_id"]) == (False, f"{1:016x}")


def test_contents_in_log_records_fill_their_span(world: World) -> None:
    """Those that come before it and those that come after it; the step counts once."""
    trace_id, project = secrets.token_hex(16), f"p{secrets.token_hex(4)}"
    named = {"stepstream.project": project}
    question = {"content": "where is order 7?"}
    world.log(trace_id, 2, "gen_ai.user.message", question, project)
    world.send(trace_id, (1, 0, AGENT | named), (2, 1, CALL | named))
    answer = {"index": 0, "message": {"content": "shipped"}}
    world.log(trace_id, 2, "gen_ai.choice", answer, project)
    world.run(trace_id, steps=4)
    step = (
        "SELECT input, output FROM steps WHERE trace_id = {run:String} "
        "AND step_id = '0000000000000002'"
    )
    wait_until(
        lambda: world.client.query(step, parameters={"run": trace_id}).row_count > 0,
        WAIT_S,
        "the call is stored",
    )
    row = world.row(step, trace_id)
    assert json.loads(row["input"]) == [{"role": "user", "content": "where is order 7?"}]
    wait_until(
        lambda: "shipped" in world.row(step, trace_id)["output"], WAIT_S, "the answer fills it"
    )
    assert json.loads(world.row(step, trace_id)["input"])
    below = (
        "SELECT name, output FROM steps WHERE trace_id = {run:String} AND name = 'gen_ai.choice'"
    )
    wait_until(
        lambda: world.client.query(below, parameters={"run": trace_id}).row_count > 0,
        WAIT_S,
        "the answer is stored",
    )
    assert "shipped" in world.row(below, trace_id)["output"]
    run = world.run(trace_id, closed=True, steps=4)
    assert (run["llm_calls"], run["input_tokens"]) == (1, 100)
    sums = (
        "SELECT toUInt64(sum(steps)), toUInt64(sum(input_tokens)) FROM metrics_1h "
        "WHERE project = {project:String}"
    )
    found = world.client.query(sums, parameters={"project": project}).result_rows
    # The call, which was stored twice, its agent and the two log records.
    assert found == [(4, 100)]


def test_usage_that_is_reported_twice_is_in_sql_once(world: World) -> None:
    """The outer call repeats the inner one, which comes in a later request. Runs, steps, both views
    of metrics and the trace have the same sums.
    """
    trace_id, project = secrets.token_hex(16), f"p{secrets.token_hex(4)}"
    named = {"stepstream.project": project}
    world.send(trace_id, (2, 1, CALL | named))
    world.send(trace_id, (3, 2, CALL | named), (4, 1, CALL | named))
    world.send(trace_id, (1, 0, AGENT | named))
    run = world.run(trace_id, closed=True, steps=4)
    assert (run["llm_calls"], run["input_tokens"]) == (2, 200)
    assert run["repeated_step_ids"] == [f"{2:016x}"]
    sums = "toUInt64(sum(input_tokens)), sum(cost_usd), sum(unpriced_steps), sum(steps)"
    views = {
        "steps": "toUInt64(sum(input_tokens)), sum(cost_usd), "
        "countIf(cost_source = 'unpriced'), count()",
        "metrics_1m": sums,
        "metrics_1h": sums,
    }
    expected = (200, run["cost_usd"], 0, 4)

    def found(view: str) -> tuple[Any, ...]:
        query = f"SELECT {views[view]} FROM {view} WHERE project = {{project:String}}"
        rows = world.client.query(query, parameters={"project": project}).result_rows
        return tuple(rows[0])

    def same(view: str, wanted: tuple[Any, ...]) -> bool:
        return found(view) == wanted

    for view in views:
        wait_until(partial(same, view, expected), WAIT_S, f"the sums of {view}")
    traced = world.client.query(
        f"SELECT step_id, input_tokens, usage_is_repeated FROM trace(id = '{trace_id}') "
        "ORDER BY step_id"
    ).result_rows
    assert traced == [
        (f"{1:016x}", 0, False),
        (f"{2:016x}", 0, True),
        (f"{3:016x}", 100, False),
        (f"{4:016x}", 100, False),
    ]
