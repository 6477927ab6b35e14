"""Every question gives the known numbers of a known set of runs, on the real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import pytest
from clickhouse_connect.driver.client import Client

from stepstream import queries
from stepstream.queries import Answer
from stepstream.queries.parameters import Unanswerable
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.question_data import KnownRun, store_runs

NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)


class Ask(Protocol):
    """Asks the store of this module."""

    def __call__(self, question: str, **given: Any) -> Answer: ...


def usual(number: int, hours_ago: float) -> KnownRun:
    """A run that went well: a plan for $0.01 that chose a search, and an answer for $0.02."""
    run = KnownRun(
        number,
        NOW - timedelta(hours=hours_ago),
        about={"agent_version": "v1", "user_id": f"u{number % 2}", "session_id": "s1"},
    )
    run.add("llm_call", "plan", "0.01", model="small", output="search for it")
    run.add("tool_call", "search", input='{"q": "beans"}', output="3 found")
    usage = {"input_tokens": 100, "output_tokens": 10}
    run.add("llm_call", "answer", "0.02", model="large", usage=usage, output="3")
    return run


def costly() -> KnownRun:
    """A run in the last hour that failed: ten searches, a refund, and ten large answers."""
    about = {"agent_version": "v2", "user_id": "u7", "session_id": "s2"}
    run = KnownRun(90, NOW - timedelta(minutes=10), status="error", about=about)
    for _ in range(10):
        run.add("llm_call", "plan", "0.01", model="small", output="search again")
        run.add("tool_call", "search", input='{"q": "beans"}', output="nothing")
        run.add("llm_call", "answer", "0.20", model="large")
    tools = '[{"type": "function", "function": {"name": "refund"}}, {"name": "search"}]'
    attributes = {"gen_ai.tool.definitions": tools}
    run.add("llm_call", "plan", model="small", cost_source="unpriced", attributes=attributes)
    error = {"status": "error", "error_type": "PaymentError", "error_message": "no such order"}
    run.add("tool_call", "refund", input='{"order": 7}', **error)
    return run


# Twelve usual runs in twelve hours before the last one, two older ones, a run of another agent.
USUAL = [usual(number, number + 1) for number in range(12)]
OLD = [usual(20, 40), usual(21, 41)]
COSTLY = costly()
OTHER = KnownRun(50, NOW - timedelta(minutes=20), agent="buyer", task="restock")
OTHER.add("tool_call", "ask_supplier", "0.50")


@pytest.fixture(scope="module")
def settings(clickhouse_url: str) -> Iterator[Settings]:
    """A store with the runs above."""
    settings = Settings(
        clickhouse_url=clickhouse_url, clickhouse_database=f"q_{uuid.uuid4().hex[:8]}"
    )
    migrate(settings)
    store_runs(settings, [*USUAL, *OLD, COSTLY, OTHER])
    yield settings
    with connect(settings) as client:
        client.command(f"DROP DATABASE {settings.clickhouse_database}")


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    """A reading client, as the command line and the console have one."""
    client = connect(settings, readonly=True)
    yield client
    client.close()


@pytest.fixture
def ask(client: Client) -> Ask:
    def ask(question: str, **given: Any) -> Answer:
        return queries.ask(client, question, now=NOW, timeout_s=60, **given)

    return ask


def by_value(answer: Answer) -> dict[str, dict[str, Any]]:
    return {row["value"]: row for row in answer}


@pytest.mark.parametrize("question", list(queries.QUESTIONS))
def test_every_question_gives_the_columns_that_it_describes(ask: Ask, question: str) -> None:
    asked = queries.find(question)
    given = {one.name: "" for one in asked.parameters if one.is_required}
    given |= {one.name: COSTLY.trace_id for one in asked.parameters if one.kind == "run"}
    answer = ask(question, **given)
    assert answer.columns == list(asked.columns)
    assert answer.sentence.endswith(".")


def test_cost_by_agent_adds_up_the_steps_of_the_window(ask: Ask) -> None:
    """Twelve runs of $0.03 and one of $2.10; the two older ones are outside of the window."""
    found = by_value(ask("cost", by="agent"))
    assert found["support"]["cost_usd"] == Decimal("2.46")
    assert found["support"]["steps"] == 12 * 4 + 33
    assert found["support"]["unpriced_steps"] == 1
    assert found["support"]["error_steps"] == 2
    assert found["buyer"]["cost_usd"] == Decimal("0.5")
    assert found["support"]["share"] == pytest.approx(2.46 / 2.96)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("model", {"small": "0.22", "large": "2.24", "": "0.5"}),
        ("tool", {"": "2.46", "search": "0", "refund": "0", "ask_supplier": "0.5"}),
        ("version", {"v1": "0.36", "v2": "2.1", "": "0.5"}),
        ("task", {"refund": "2.46", "restock": "0.5"}),
        ("user", {"u0": "0.18", "u1": "0.18", "u7": "2.1", "": "0.5"}),
        ("status", {"ok": "0.86", "error": "2.1"}),
    ],
)
def test_cost_by_anything_adds_up_to_the_same(ask: Ask, by: str, expected: dict[str, str]) -> None:
    found = ask("cost", by=by)
    assert {row["value"]: row["cost_usd"] for row in found} == {
        value: Decimal(usd) for value, usd in expected.items()
    }


def test_cost_of_a_window_is_exact_where_it_begins_and_ends_within_an_hour(ask: Ask) -> None:
    """Whole hours come from sums, the edges from steps: nothing is missing or counted twice."""
    began = USUAL[3].start
    # The run's plan starts a second after its root and its answer three seconds after it.
    found = ask("cost", since=began + timedelta(seconds=2), until=NOW - timedelta(hours=1.5))
    assert sum(row["cost_usd"] for row in found) == Decimal("0.02") + 2 * Decimal("0.03")
    within = ask("cost", since=began, until=began + timedelta(seconds=2))
    assert [row["cost_usd"] for row in within] == [Decimal("0.01")]


def test_spikes_name_the_hour_and_what_made_the_difference(ask: Ask) -> None:
    (spike,) = ask("spikes").records()
    hour = COSTLY.start.replace(minute=0)
    assert spike["time"].replace(tzinfo=UTC) == hour
    assert (spike["agent"], spike["part"]) == ("support", "large")
    assert spike["cost_usd"] == pytest.approx(2.10)
    assert spike["normal_usd"] == pytest.approx(0.03)
    assert spike["part_excess_usd"] == pytest.approx(2.00 - 0.02)
    assert (spike["part_calls"], spike["part_normal_calls"]) == (10, 1)


def test_the_cost_of_a_run_is_compared_with_good_runs_of_its_agent_and_task(ask: Ask) -> None:
    answer = ask("run-cost", run=COSTLY.trace_id)
    first, second = answer.records()[:2]
    assert (first["name"], first["calls"], first["normal_calls"]) == ("answer", 10, 1.0)
    assert first["excess_usd"] == pytest.approx(2.00 - 0.02)
    assert second["name"] == "plan"
    assert second["excess_usd"] == pytest.approx(0.10 - 0.01)
    assert first["runs"] == 14
    assert "answer made $1.98 of the difference with 10 calls, normally 1" in answer.sentence


def test_a_tool_call_is_explained_by_the_model_step_that_chose_it(ask: Ask) -> None:
    (row,) = ask("why-tool", run=COSTLY.trace_id, step="refund").records()
    assert row["chosen_by"] == COSTLY.step_id(31)
    assert row["offered"] == ["refund", "search"]
    assert row["offered_from"] == "recorded"
    assert row["similar"] == [("search", 14)]
    assert row["similar_share"] == 0.0
    first = ask("why-tool", run=USUAL[0].trace_id).records()[0]
    assert (first["tool"], first["chosen_by_name"], first["output"]) == (
        "search",
        "plan",
        "search for it",
    )
    second = ask("why-tool", run=COSTLY.trace_id, step=COSTLY.step_id(5)).records()[0]
    assert [name for _, _, name in second["read"]] == []


def test_a_tool_that_a_run_did_not_call_is_named(ask: Ask) -> None:
    with pytest.raises(Unanswerable, match="has no call of serch; did you mean search"):
        ask("why-tool", run=COSTLY.trace_id, step="serch")


def test_runs_are_filtered_sorted_and_cut(ask: Ask) -> None:
    assert len(ask("runs")) == 14
    assert ask("runs", sort="cost").data["trace_id"][0] == COSTLY.trace_id
    assert ask("runs", status="error").data["trace_id"] == [COSTLY.trace_id]
    assert ask("runs", tool="ask_*").data["agent"] == ["buyer"]
    assert ask("runs", text="such order").data["error_type"] == ["PaymentError"]
    assert ask("runs", min_cost=0.4).data["agent"] == ["support", "buyer"]
    assert len(ask("runs", user="u0", limit=4)) == 4
    assert len(ask("runs", user="u0", limit=4, offset=4)) == 2


def test_facets_count_the_runs_of_the_same_filter(ask: Ask) -> None:
    counted = {(row["facet"], row["value"]): row["runs"] for row in ask("facets")}
    assert counted["agent", "support"] == 13
    assert counted["status", "error"] == 1
    assert counted["tool", "search"] == 13
    assert counted["model", "large"] == 13
    filtered = {(row["facet"], row["value"]) for row in ask("facets", agent="buyer")}
    assert ("agent", "support") not in filtered


def test_steps_of_a_run_have_sizes_instead_of_contents(ask: Ask) -> None:
    answer = ask("steps", run=USUAL[0].trace_id[:-1] + USUAL[0].trace_id[-1])
    assert answer.data["kind"] == ["agent", "llm_call", "tool_call", "llm_call"]
    assert answer.data["output_bytes"][2] == len("3 found")
    assert answer.data["duration_us"][1] == 500_000


def test_an_unknown_run_is_an_error_and_a_beginning_of_an_id_is_enough(ask: Ask) -> None:
    with pytest.raises(Unanswerable, match="no run has an id that begins with fff"):
        ask("steps", run="fff")
    with pytest.raises(Unanswerable, match="several runs"):
        ask("steps", run="0000")
    with pytest.raises(Unanswerable, match="no run has an id"):
        ask("steps", run="f" * 32)
