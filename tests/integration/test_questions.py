"""Every question gives the known numbers of a known set of runs, on the real engine."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pytest
from clickhouse_connect.driver.client import Client

import stepstream
from stepstream import queries
from stepstream.cli.app import run as command
from stepstream.evals.blame.step import MAX_ALL_TEXT
from stepstream.evals.gate.policy import GatePolicy
from stepstream.evals.gate.trials import RESULTS_VERSION, Header, Results, Trial, results_of
from stepstream.evals.gate.verdict import gate
from stepstream.queries import Answer
from stepstream.queries.cost_check import cost_check
from stepstream.queries.parameters import Unanswerable
from stepstream.queries.question import for_clients, rows_of
from stepstream.queries.suspects import texts_sql
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.suites.publish import publish_verdict
from tests.support.console import running
from tests.support.question_data import KnownRun, store_runs

DAY = timedelta(days=1)
PARTS_READ = re.compile(
    r"ReadFromMergeTree \(\S+steps_raw\)\n(?:(?!.*ReadFrom).*\n)*?.*Parts: (\d+) "
)
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


def written(number: int, version: str, cost: str, status: str = "ok") -> KnownRun:
    """A run three days ago, of an agent with two versions."""
    start = NOW - timedelta(hours=72, minutes=number)
    run = KnownRun(number, start, agent="writer", task="draft", status=status)
    run.about = {"agent_version": version}
    run.add("llm_call", "draft", cost, model="large")
    return run


# The second version costs $0.02 more a run, and every second run of it fails.
OLD_VERSION = [written(100 + n, "1", f"{0.010 + 0.002 * n:.3f}") for n in range(10)]
NEW_VERSION = [
    written(120 + n, "2", f"{0.030 + 0.002 * n:.3f}", "error" if n % 2 else "ok") for n in range(10)
]

LOOPING = KnownRun(140, NOW - timedelta(hours=80), agent="looper")
FIRST_CALL = LOOPING.add("tool_call", "fetch", "0.10", input="same")
SECOND_CALL = LOOPING.add("tool_call", "fetch", "0.10", input="same")
LOOPING.add("tool_call", "store", "0.40", attempt=2, retry_of=FIRST_CALL)
LOOP_FINDING = {
    "finding_id": "f1",
    "state": "open",
    "time": LOOPING.start,
    "rule": "loop",
    "project": "default",
    "agent": "looper",
    "task": "refund",
    "trace_id": LOOPING.trace_id,
    "subject": "fetch:1",
    "step_ids": [FIRST_CALL, SECOND_CALL],
    "value": 5.0,
    "message": "fetch was called 5 times with the same input",
}
RESOLVED = LOOP_FINDING | {
    "finding_id": "f2",
    "state": "resolved",
    "time": LOOPING.start + timedelta(seconds=9),
    "value": None,
    "message": "the run is over",
}


@pytest.fixture(scope="module")
def settings(clickhouse_url: str) -> Iterator[Settings]:
    """A store with the runs above."""
    settings = Settings(
        clickhouse_url=clickhouse_url, clickhouse_database=f"q_{uuid.uuid4().hex[:8]}"
    )
    migrate(settings)
    store_runs(settings, [*USUAL, *OLD, COSTLY, OTHER, *OLD_VERSION, *NEW_VERSION, LOOPING])
    with connect(settings) as client:
        for finding in (LOOP_FINDING, RESOLVED):
            client.insert("findings_raw", [list(finding.values())], list(finding))
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
    # Unknown costs are counted next to the sum, never as 0 in it.
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


def test_suspects_of_a_long_run_read_a_bounded_text(settings: Settings, client: Client) -> None:
    """The texts of steps that only contain others are not read, and those of the rest are cut."""
    long = KnownRun(300, NOW - timedelta(days=20), agent="long")
    team = long.add("agent", "team", output="x" * 16_000)
    for number in range(900):
        text = f"{number} " + "y" * 7_900
        long.add("tool_call", "search", parent_step_id=team, output=text, status="ok")
    wrong = {"status": "error", "error_type": "Timeout", "error_message": "no answer"}
    failed = long.add("tool_call", "fetch", parent_step_id=team, **wrong)
    store_runs(settings, [long])

    values = {"run": long.trace_id, "most": MAX_ALL_TEXT // 901}
    found = rows_of(client)(texts_sql(901), values)
    texts = {row["step_id"]: row["text"] for row in found}

    assert len(texts) == 901 + 1  # the root's as well, whose input is what the run was asked
    assert team not in texts
    assert sum(map(len, texts.values())) <= MAX_ALL_TEXT
    assert max(map(len, texts.values())) == MAX_ALL_TEXT // 901
    answer = queries.ask(client, "suspects", run=long.trace_id)
    assert answer.records()[0]["step_id"] == failed


def test_the_suspects_of_a_failed_run_are_its_failed_call_and_what_issued_it(ask: Ask) -> None:
    answer = ask("suspects", run=COSTLY.trace_id)
    assert len(answer) == 3
    found = {row["step_id"]: row for row in answer}
    refund, plan = COSTLY.step_id(32), COSTLY.step_id(31)
    failed = "failed and was not repaired: PaymentError: no such order"
    assert failed in found[refund]["evidence"]
    assert "issued the call of refund, which failed" in found[plan]["evidence"]
    assert found[plan]["path"][0] == (plan, "plan")
    assert 0 < sum(row["probability"] for row in answer) <= 1


def test_a_call_that_fails_the_criteria_is_suspected_while_the_run_fails_them(
    settings: Settings, client: Client
) -> None:
    """A run that later steps made a success again has the note and no such evidence."""
    runs = []
    for number, success in ((310, "false"), (311, "true")):
        run = KnownRun(number, NOW - timedelta(days=21), agent="careless", success=success)
        run.add("llm_call", "plan", output="search")
        run.add("tool_call", "search", output="found")
        run.add("llm_call", "decide", output="refund")
        refund = run.add("tool_call", "refund", output="done")
        run.add("llm_call", "answer", output="Done.")
        runs.append((run, refund))
    store_runs(settings, [run for run, _ in runs])
    for run, refund in runs:
        note = LOOP_FINDING | {
            "finding_id": f"criteria-{run.number}",
            "state": "firing",
            "time": run.start,
            "rule": "criteria_failed",
            "trace_id": run.trace_id,
            "step_ids": [refund],
            "message": "the run does not meet the criteria refunds: must not be called: refund",
        }
        with connect(settings) as writer:
            writer.insert("findings_raw", [list(note.values())], list(note))
    (failed, refund), (met, _) = runs
    found = queries.ask(client, "suspects", run=failed.trace_id).records()
    assert {row["name"] for row in found[:2]} == {"refund", "decide"}
    (row,) = [row for row in found if row["step_id"] == refund]
    assert row["evidence"][0].endswith("must not be called: refund")
    evidence = [row["evidence"] for row in queries.ask(client, "suspects", run=met.trace_id)]
    assert "must not be called" not in str(evidence)


def test_published_results_and_verdicts_are_answers(settings: Settings, client: Client) -> None:
    """Published twice they are there once; runs of trials that the store has are marked."""

    def side(agent: str, lost: int) -> Results:
        trials = [
            Trial(f"c{n}", trial, success=n >= lost, cost_usd=0.5, trace_id=COSTLY.trace_id)
            for n in range(12)
            for trial in range(2)
        ]
        trials.append(Trial("c-crashed", 0, crashed=True, trace_id="0" * 32))
        return results_of(agent, trials, Header(RESULTS_VERSION, "refunds", "4f1d", agent))

    sides, policy = (side("v12", 0), side("v13", 9)), GatePolicy()
    verdict = gate(*sides, policy)
    for moment in (1, 2):
        now_us = round(NOW.timestamp() * 1_000_000) - 3_600_000_000 + moment
        own_id = publish_verdict(settings, verdict, *sides, policy, now_us)

    def ask(question: str, **given: Any) -> Answer:
        return queries.ask(client, question, now=NOW, timeout_s=60, **given)

    found = {row["agent"]: row for row in ask("experiments", suite="refund*")}
    assert {agent: row["trials"] for agent, row in found.items()} == {"v12": 25, "v13": 25}
    assert (found["v13"]["succeeded"], found["v13"]["failed"], found["v13"]["crashed"]) == (
        6,
        19,
        1,
    )
    assert found["v12"]["success_rate"] == pytest.approx(24 / 25)
    (row,) = ask("verdicts").records()
    assert (row["verdict_id"], row["outcome"], row["cases"]) == (own_id, "fail", 13)
    assert ask("verdicts").sentence == "1 verdict: 0 pass, 1 fail, 0 inconclusive."
    (whole,) = ask("verdict", id=own_id[:6]).records()
    assert json.loads(whole["verdict"])["metrics"][0]["metric"] == "success"
    trials = ask("trials", ids=f"{row['baseline_id']},{row['candidate_id']}")
    assert len(trials) == 50
    in_store = {(one["case_id"] != "c-crashed", one["in_store"]) for one in trials}
    assert in_store == {(True, True), (False, False)}
    assert len(ask("verdicts", project="another")) == 0


def test_success_over_time_counts_no_unknown_run_in_shares(
    settings: Settings, client: Client
) -> None:
    start = NOW - timedelta(days=24)
    states = ("true", "true", "false", "unknown", "")
    runs = [
        KnownRun(320 + n, start + timedelta(minutes=n), agent="scored", success=success)
        for n, success in enumerate(states)
    ]
    store_runs(settings, runs)
    note = LOOP_FINDING | {
        "finding_id": "criteria-320",
        "state": "firing",
        "rule": "criteria_failed",
        "policy": "refunds",
        "agent": "scored",
        "time": start,
        "message": "no",
    }
    with connect(settings) as writer:
        for run in runs:
            made = note | {"finding_id": f"criteria-{run.number}", "trace_id": run.trace_id}
            writer.insert("findings_raw", [list(made.values())], list(made))
    given: dict[str, Any] = {
        "agent": "scored",
        "since": "25d",
        "until": "23d",
        "now": NOW,
        "timeout_s": 60,
    }
    answer = queries.ask(client, "success", **given)
    assert sum(row["succeeded"] for row in answer) == 2
    assert sum(row["unknown"] for row in answer) == 1
    assert answer.sentence == "2 of 3 runs succeeded (66.7 %); 1 are unknown."
    # Only of runs that fail their Criteria now.
    (row,) = queries.ask(client, "failed-criteria", **given).records()
    assert (row["criteria"], row["runs"]) == ("refunds", 1)


def test_waste_adds_up_failed_runs_retries_and_loops(ask: Ask) -> None:
    found = {(row["waste"], row["agent"]): row for row in ask("waste", since="7d")}
    assert found["failed runs", "support"]["cost_usd"] == pytest.approx(2.10)
    assert found["failed runs", "writer"]["number"] == 5
    retries = found["retries", "looper"]
    assert (retries["number"], retries["cost_usd"]) == (1, pytest.approx(0.40))
    loops = found["loops", "looper"]
    assert (loops["number"], loops["cost_usd"]) == (2, pytest.approx(0.20))
    (failed,) = ask("waste").records()
    assert failed["share"] == pytest.approx(2.10 / 2.96)


def test_loops_are_those_that_detectors_found(ask: Ask) -> None:
    assert len(ask("loops")) == 0
    (loop,) = ask("loops", since="7d").records()
    assert (loop["trace_id"], loop["times"], loop["status"]) == (LOOPING.trace_id, 5.0, "ok")
    assert loop["message"] == LOOP_FINDING["message"]
    assert loop["run_cost_usd"] == Decimal("0.6")


def test_unpriced_models_are_counted(ask: Ask) -> None:
    (row,) = ask("unpriced").records()
    assert (row["model"], row["unpriced_steps"], row["agents"]) == ("small", 1, ["support"])


def test_slowest_steps_leave_out_agents(ask: Ask) -> None:
    answer = ask("slowest", limit=3)
    assert answer.data["duration_us"] == [500_000] * 3
    assert "agent" not in ask("slowest", limit=1_000).data["kind"]
    assert set(ask("slowest", kind="llm*").data["kind"]) == {"llm_call"}


def test_the_critical_path_adds_up_to_the_run(ask: Ask) -> None:
    answer = ask("critical-path", run=USUAL[0].trace_id)
    assert answer.data["name"] == ["support", "plan", "search", "answer"]
    assert answer.data["own_us"] == [2_500_000, 500_000, 500_000, 500_000]
    assert sum(answer.data["share"]) == pytest.approx(1)


def test_percentiles_are_those_of_closed_runs(ask: Ask) -> None:
    found = {(row["agent"], row["agent_version"]): row for row in ask("percentiles")}
    usual_runs = found["support", "v1"]
    assert (usual_runs["runs"], usual_runs["error_rate"]) == (12, 0)
    assert usual_runs["p95_duration_us"] == 4_000_000
    assert usual_runs["p50_cost_usd"] == pytest.approx(0.03)
    assert (usual_runs["streamed"], usual_runs["p50_first_token_us"]) == (0, None)
    assert found["support", "v2"]["p99_duration_us"] == 33_000_000
    assert found["support", "v2"]["error_rate"] == 1


def test_versions_are_compared_with_sizes_and_uncertainty(ask: Ask) -> None:
    """Of the cost Welch's interval (18 degrees of freedom, t = 2.1009), of errors Newcombe's."""
    answer = ask("versions", agent="writer", old="1", new="2", since="7d")
    found = {row["measure"]: row for row in answer}
    cost = found["cost in dollars"]
    assert (cost["old_runs"], cost["new_runs"]) == (10, 10)
    assert (cost["old_value"], cost["new_value"]) == pytest.approx((0.019, 0.039))
    assert (cost["low"], cost["high"]) == pytest.approx((0.014311, 0.025689), abs=1e-5)
    assert cost["is_clear"]
    errors = found["error rate"]
    assert errors["difference"] == pytest.approx(0.5)
    assert (errors["low"], errors["high"]) == pytest.approx((0.1174, 0.7634), abs=1e-3)
    assert not found["seconds"]["is_clear"]
    assert "cost in dollars by +0.02 (+0.0143 to +0.0257)" in answer.sentence


def test_a_version_without_runs_is_named(ask: Ask) -> None:
    answer = ask("versions", agent="writer", old="1", new="9", since="7d")
    assert "no closed runs of one of these versions" in answer.sentence


def test_similar_runs_are_those_with_the_same_steps(ask: Ask) -> None:
    answer = ask("similar", run=USUAL[3].trace_id, limit=20)
    assert answer.data["similarity"][:13] == [1.0] * 13
    last = answer.records()[-1]
    assert last["trace_id"] == COSTLY.trace_id
    assert last["similarity"] == pytest.approx(4 / 33)
    assert (last["more_steps"], last["only_there"]) == (29, ["tool_call refund"])
    assert (
        COSTLY.trace_id not in ask("similar", run=USUAL[3].trace_id, status="ok").data["trace_id"]
    )


def test_everything_of_a_session_or_user_is_listed_in_order(ask: Ask) -> None:
    session = ask("session", session="s1")
    assert session.data["start_time"] == sorted(session.data["start_time"])
    assert len(session) == 14
    assert len(ask("user", user="u7")) == 1
    assert "no runs of it" in ask("user", user="unknown").sentence


def test_a_text_is_found_in_any_case_with_what_surrounds_it(ask: Ask) -> None:
    answer = ask("search", text="SUCH ORDER")
    assert answer.data["step_id"] == [COSTLY.step_id(32)]
    assert (answer.data["found_in"], answer.data["excerpt"]) == (["error"], ["no such order"])
    assert ask("search", text="3 found").data["found_in"] == ["output"] * 12
    assert len(ask("search", text="100%_")) == 0


def test_a_provider_s_export_is_compared_per_model_and_day(client: Client) -> None:
    day = OLD_VERSION[0].start.date()
    ours = sum(
        Decimal(run.steps[0]["cost_usd"])
        for run in [*OLD_VERSION, *NEW_VERSION]
        if run.start.date() == day
    )
    lines = ["Date,Model,Cost (USD)", f"{day},openai/large-2026-01-01,$1.00"]
    answer = cost_check(lines, rows_of(client))
    row = next(row for row in answer if (row["day"], row["model"]) == (day, "large"))
    assert (row["billed_usd"], row["our_usd"]) == (Decimal("1.00"), ours)
    assert row["difference_usd"] == ours - 1


def test_a_query_runs_over_http_with_its_parameters(ask: Ask, client: Client) -> None:
    """As any client of ClickHouse would run what --sql prints."""
    answer = ask("cost", by="model")
    again = client.query(answer.sql, parameters=dict(answer.parameters))
    assert [tuple(row) for row in again.result_rows] == answer.rows


@pytest.mark.parametrize(
    "text", ["it's", r"C:\new\table", "\\", "\\N", "a\tb\nc", "'; DROP TABLE runs_raw; --", "{a:b}"]
)
def test_a_printed_query_sets_the_same_parameters_in_a_session(
    settings: Settings, text: str
) -> None:
    """Quotes, backslashes, tabs and lines of a text are part of the text."""
    session = {"session_id": uuid.uuid4().hex}
    setting, query = for_clients("SELECT {t:String} AS found", {"t": text}).rsplit(";\n", 1)
    with connect(settings) as client:
        client.command(setting, settings=session)
        found = client.query(query.removesuffix(";"), settings=session)
    assert found.result_rows == [(text,)]


@pytest.mark.parametrize("question", ["cost", "waste", "slowest", "percentiles", "search"])
def test_no_more_partitions_are_read_than_the_window_needs(
    ask: Ask, client: Client, question: str
) -> None:
    """By ClickHouse's own plan: steps are kept by day, and three days ago is not asked about."""
    given = {"text": "found"} if question == "search" else {}
    answer = ask(question, **given)
    plan = client.query(f"EXPLAIN indexes = 1 {answer.sql}", parameters=dict(answer.parameters))
    text = "\n".join(str(line) for (line,) in plan.result_rows)
    read = [int(parts) for parts in PARTS_READ.findall(text)]
    assert read
    # A part is of one day; the day before yesterday is not asked about.
    assert max(read) <= 2, text


def test_programs_get_the_same_answer(settings: Settings, ask: Ask) -> None:
    answer = stepstream.query("cost", settings=settings, by="task", until=NOW, since=NOW - DAY)
    assert answer.rows == ask("cost", by="task").rows
    assert answer.arrow().column_names == answer.columns
    assert list(answer.pandas()["value"]) == answer.data["value"]
    counted = stepstream.query(
        "SELECT count() AS n FROM runs WHERE agent = {a:String}", settings=settings, a="buyer"
    )
    assert counted.records() == [{"n": 1}]


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
    answer = ask("steps", run=USUAL[0].trace_id)
    assert answer.data["kind"] == ["agent", "llm_call", "tool_call", "llm_call"]
    assert answer.data["output_bytes"][2] == len("3 found")
    assert answer.data["duration_us"][1] == 500_000


def test_an_unknown_run_is_an_error_and_a_beginning_of_an_id_is_enough(ask: Ask) -> None:
    with pytest.raises(Unanswerable, match="no run has an id that begins with fff"):
        ask("steps", run="fff")
    # No other run of this store has an id with an f at this place.
    assert ask("run", run=COSTLY.trace_id[:-1]).data["trace_id"] == [COSTLY.trace_id]
    with pytest.raises(Unanswerable, match="several runs"):
        ask("steps", run="0000")
    with pytest.raises(Unanswerable, match="no run has an id"):
        ask("steps", run="f" * 32)


@pytest.fixture
def printed(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `stepstream ask` with the exit code ``fails``; what it printed, or its error."""
    flags = [
        f"--clickhouse-url={settings.clickhouse_url}",
        f"--clickhouse-password={settings.clickhouse_password.get_secret_value()}",
        f"--clickhouse-database={settings.clickhouse_database}",
        f"--state-dir={tmp_path}",
    ]

    def run(*arguments: str, fails: int = 0) -> str:
        code = command(["ask", *arguments, *flags])
        output = capsys.readouterr()
        assert code == fails, output.err
        return output.err if fails else output.out

    return run


def test_the_command_line_prints_the_answer_and_its_sentence(printed: Callable[..., str]) -> None:
    assert "Does a provider's usage export agree" in printed()
    text = printed("suspects", COSTLY.trace_id[:-1])
    assert "refund" in text
    assert "Most likely" in text
    rows = json.loads(printed("cost", "--by", "model", "--since", "7d", "--format", "json"))
    assert {row["value"] for row in rows} == {"small", "large", ""}
    assert "SET param_by = 'model';\nSET param_" in printed("cost", "by=model", "--sql")


def test_words_are_the_parameters_that_no_option_gave(printed: Callable[..., str]) -> None:
    window = ["--since", "7d", "--format", "json"]
    rows = json.loads(printed("versions", "writer", "1", "2", *window))
    assert rows[0]["old_runs"] == 10
    assert json.loads(printed("versions", "--agent", "writer", "1", "2", *window)) == rows
    assert "3 is none" in printed("versions", "--agent", "writer", "1", "2", "3", fails=2)


def test_an_export_is_compared_on_the_command_line(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(f"date,model,cost\n{OLD_VERSION[0].start.date()},large,1\n")
    assert "Billed $1.00" in printed("cost-check", "--csv", str(file))
    assert "takes provider=NAME" in printed("cost-check", "--csv", str(file), "x=1", fails=2)
    assert "takes provider=NAME" in printed(
        "cost-check", "--csv", str(file), "--since", "7d", fails=2
    )
    assert "needs --csv FILE" in printed("cost-check", fails=2)
    assert "--csv is for cost-check" in printed("cost", "--csv", str(file), fails=2)
    file.write_text("date,model,cost\n2026-03-01,a,much\n")
    assert "line 2: 'much' is not a cost" in printed("cost-check", "--csv", str(file), fails=2)


def test_an_export_is_compared_by_the_console(settings: Settings, tmp_path: Path) -> None:
    store = settings.model_dump(include={"clickhouse_url", "clickhouse_database"})
    store["clickhouse_password"] = settings.clickhouse_password.get_secret_value()
    export = f"\ufeffdate,model,cost\n{OLD_VERSION[0].start.date()},large,1\n"
    with running(tmp_path, **store) as client:
        got = client.post("/api/v1/ask/cost-check", {"csv": export})
        wrong = client.post("/api/v1/ask/cost-check", {"csv": export.replace("1\n", "much\n")})
    assert got.status == 200, got.body
    assert "Billed $1.00" in got.json["sentence"]
    assert (wrong.status, "not a cost" in wrong.json["error"]) == (400, True)


def test_wrong_usage_and_a_run_that_is_missing_have_different_exit_codes(
    printed: Callable[..., str],
) -> None:
    assert "did you mean spikes?" in printed("spike", fails=2)
    assert "'xyz' is not a run id" in printed("steps", "xyz", fails=2)
    assert "several runs" in printed("steps", "0000", fails=2)
    assert "no run has an id" in printed("steps", "fff", fails=1)
    assert "run is missing" in printed("steps", fails=2)
