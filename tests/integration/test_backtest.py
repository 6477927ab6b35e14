"""Recorded runs evaluated with other policies and saved as incidents, on the real engine."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stepstream.admin.documents import read_documents
from stepstream.backtest.evaluate import backtest
from stepstream.backtest.store import Scope
from stepstream.backtest.timeline import Timeline
from stepstream.cli.app import run as stepstream
from stepstream.schemas.policy import Policy
from stepstream.schemas.recording import end, header, written
from stepstream.schemas.settings import Settings
from stepstream.schemas.store_rules.sql import Sql
from stepstream.sinks.batching.stats import SinkStats
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.sql_rules import Due, evaluate
from tests.support.paths import ROOT
from tests.support.question_data import KnownRun, store_runs

NOW = datetime.now(UTC).replace(microsecond=0)
POLICY = """
kind: Policy
name: costs
match: {agent: support}
mode: enforce
rules:
  - {rule: run_cost, limit_usd: 0.25, action: stop}
"""


def costly(number: int, hours_ago: float, status: str) -> KnownRun:
    """Ten calls of $0.10: the limit of $0.25 is exceeded at the third."""
    run = KnownRun(number, NOW - timedelta(hours=hours_ago), status=status)
    for place in range(10):
        run.add("llm_call", "answer", "0.10", model="large", input=f"question {place}")
    return run


def cheap(number: int, hours_ago: float) -> KnownRun:
    run = KnownRun(number, NOW - timedelta(hours=hours_ago))
    run.add("llm_call", "answer", "0.10", model="large")
    return run


RUNS = [costly(1, 5, "ok"), costly(2, 4, "error"), cheap(3, 3), costly(4, 50, "error")]
ASKED = {"input": "Buy seven", "input_bytes": 9}
OTHER = KnownRun(5, NOW - timedelta(hours=2), agent="buyer", about=ASKED)
OTHER.add("llm_call", "answer", "9.00", model="large")


@pytest.fixture(scope="module")
def settings(clickhouse_url: str) -> Iterator[Settings]:
    """A store with the runs above."""
    settings = Settings(
        clickhouse_url=clickhouse_url, clickhouse_database=f"b_{uuid.uuid4().hex[:8]}"
    )
    migrate(settings)
    store_runs(settings, [*RUNS, OTHER])
    yield settings
    with connect(settings) as client:
        client.command(f"DROP DATABASE {settings.clickhouse_database}")


def policy(**changes: object) -> Policy:
    rule = {"rule": "run_cost", "limit_usd": "0.25", "action": "stop"}
    base = {"name": "costs", "match": {"agent": "support"}, "mode": "enforce", "rules": [rule]}
    return Policy.model_validate({**base, **changes})


def test_a_backtest_states_alerts_stopped_runs_and_money(settings: Settings) -> None:
    """Of the runs of the window: two exceed the limit, each saves $0.70, one of them had gone well.

    The run before the window and the one of the other agent are not there.
    """
    seen: list[tuple[int, int]] = []
    with connect(settings, readonly=True) as client:
        scope = Scope(NOW - timedelta(hours=24), NOW)
        found = backtest(
            client,
            scope,
            Timeline(),
            Timeline((policy(),)),
            on_progress=lambda *at: seen.append(at),
        )
    # The run before the window and the one of another agent are not counted.
    assert (found.runs, found.steps) == (4, 11 + 11 + 2 + 2)
    # Each step was recorded with an end only; its start is made again.
    assert seen[-1] == (found.events, 2 * found.steps)
    assert found.missing_steps == 0
    result = found.comparison
    assert result.after["run-cost", "error"] == 2
    assert not result.before["run-cost", "error"]
    new = {(alert.alert, alert.trace_id) for alert in result.new}
    assert new == {("run-cost", run.trace_id) for run in RUNS[:2]}
    assert not result.gone
    assert [one.saved_nanos for one in result.stopped] == [700_000_000, 700_000_000]
    assert result.stopped_in_error == 1


def test_steps_that_retention_has_removed_are_counted(settings: Settings) -> None:
    """Of the runs that are evaluated, two have lost a step each."""
    runs = [cheap(number, 30) for number in (11, 12)]
    store_runs(settings, runs)
    with connect(settings) as client:
        client.command(
            "DELETE FROM steps_raw WHERE kind = 'llm_call' AND trace_id IN {ids:Array(String)}",
            parameters={"ids": [run.trace_id for run in runs]},
        )
    with connect(settings, readonly=True) as client:
        scope = Scope(NOW - timedelta(hours=32), NOW - timedelta(hours=28))
        found = backtest(client, scope, Timeline(), Timeline())
    assert (found.runs, found.steps, found.missing_steps) == (2, 4, 2)


def test_the_policy_of_the_same_name_is_replaced(settings: Settings) -> None:
    """With a limit that no run exceeds its alerts are gone."""
    high = policy(rules=[{"rule": "run_cost", "limit_usd": "5"}])
    with connect(settings, readonly=True) as client:
        scope = Scope(NOW - timedelta(hours=24), NOW, agent="support")
        in_force = Timeline((policy(),))
        found = backtest(client, scope, in_force, in_force.replaced([high]))
    assert {alert.trace_id for alert in found.comparison.gone} == {r.trace_id for r in RUNS[:2]}
    assert found.runs == 3
    assert (found.agreement.same, len(found.agreement.extra)) == (0, 2)


def test_an_incident_is_saved_and_fails_until_the_policy_finds_it(
    settings: Settings, clickhouse_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands, as a person runs them; the file is not overwritten."""
    file = tmp_path / "incidents" / "costly.json"
    file.parent.mkdir()
    flags = ["--clickhouse-url", clickhouse_url]  # with its login
    flags += ["--clickhouse-database", settings.clickhouse_database]
    save = ["incident", "save", RUNS[0].trace_id, "-o", str(file), "--name", "costly", *flags]
    assert stepstream(save) == 0
    assert "11 steps; expected: no alert" in capsys.readouterr().out
    # A second save must not overwrite what a person has edited.
    assert stepstream(save) == 1
    assert "use --force" in capsys.readouterr().err

    incident = json.loads(file.read_text())
    incident["expect"] = [{"alert": "run-cost", "by_cost_share": 0.5}]
    file.write_text(json.dumps(incident))
    assert stepstream(["policy", "test", str(tmp_path)]) == 1
    assert "run-cost was not raised" in capsys.readouterr().out
    (tmp_path / "costs.yaml").write_text(POLICY)
    assert stepstream(["policy", "test", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "passed  costly" in out
    assert "run-cost at step 4, 30% of its cost: " in out


def test_a_saved_run_has_its_recording(
    settings: Settings, clickhouse_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the run was recorded; a damaged recording is named, and the run is saved without it."""
    calls = tmp_path / "calls"
    calls.mkdir()
    recorded = calls / f"{RUNS[2].trace_id}.jsonl"
    first = written(header(RUNS[2].trace_id, "support", "", "", "hello", 1)) + "\n"
    digest = hashlib.sha256(first.encode()).hexdigest()
    recorded.write_text(f"{first}{written(end(0, 'hello', '', [], digest))}\n")
    flags = ["--clickhouse-url", clickhouse_url, "--recordings", str(calls)]
    flags += ["--clickhouse-database", settings.clickhouse_database]
    file = tmp_path / "saved.json"
    assert stepstream(["incident", "save", RUNS[2].trace_id, "-o", str(file), *flags]) == 0
    assert "steps, with its recording; expected" in capsys.readouterr().out
    assert len(json.loads(file.read_text())["recording"]) == 2
    recorded.write_text(first)
    save = ["incident", "save", RUNS[2].trace_id, "-o", str(file), "--force", *flags]
    assert stepstream(save) == 0
    assert "saved without a recording" in capsys.readouterr().err
    assert "recording" not in json.loads(file.read_text())


def buyer(_given: str) -> str:
    return "bought seven"


def test_a_candidate_is_run_on_the_inputs_of_production(
    settings: Settings, clickhouse_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that cost money need a limit, and tools need recordings or a word."""
    criteria = tmp_path / "criteria.yaml"
    criteria.write_text("kind: Criteria\nname: x\nchecks: [{check: answer, contains: [bought]}]\n")
    flags = ["--clickhouse-url", clickhouse_url, "-c", str(criteria), "--sample", "1"]
    flags += ["--clickhouse-database", settings.clickhouse_database, "-o", str(tmp_path)]
    shadow = ["eval", "shadow", "--candidate", "tests.integration.test_backtest:buyer", *flags]
    assert stepstream([*shadow, "--agent", "buyer"]) == 2
    assert "--live-tools" in capsys.readouterr().err
    assert stepstream([*shadow, "--agent", "buyer", "--live-tools"]) == 2
    assert "give a limit, --max-usd" in capsys.readouterr().err
    limited = [*shadow, "--max-usd", "5"]
    assert stepstream([*limited, "--agent", "buyer", "--live-tools"]) == 0
    sides = {
        name: list(map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines()))[1]
        for name in ("production", "candidate")
    }
    assert {side["case"] for side in sides.values()} == {OTHER.trace_id}
    assert sides["candidate"]["success"] is True
    # Without its recording, or without its input, a run is left out.
    assert stepstream([*limited, "--agent", "buyer", "--recordings", str(tmp_path)]) == 2
    assert "its calls are not recorded (1)" in capsys.readouterr().err
    assert stepstream([*limited, "--agent", "support", "--live-tools"]) == 2
    assert "the input is not recorded whole (" in capsys.readouterr().err


def test_a_run_becomes_a_case_of_a_suite(
    settings: Settings, clickhouse_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs whose input was not recorded are refused with the reason."""
    suite = tmp_path / "suite.jsonl"
    flags = ["--clickhouse-url", clickhouse_url, "-o", str(suite)]
    flags += ["--clickhouse-database", settings.clickhouse_database]
    assert stepstream(["eval", "add", OTHER.trace_id, "--expected", "bought", *flags]) == 0
    (case,) = map(json.loads, suite.read_text().splitlines())
    assert case == {
        "id": "buyer-00000000",
        "input": "Buy seven",
        "expected": "bought",
        "source_trace": OTHER.trace_id,
    }
    capsys.readouterr()
    assert stepstream(["eval", "add", RUNS[0].trace_id, *flags]) == 1
    assert "is not recorded whole (nothing)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"kind": "Incident", "version": 2}', "this release reads version 1"),
        ('{"kind": "Incident", "name": "x", "events": []}', "events"),
        ('{"kind": "Incident", "name": "x", "events": [{"a": 1}]}', "event 1 is not a step event"),
        ("kind: Policy\nname: x\nrules: [{rule: run_cots}]\n", "did you mean run_cost?"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_place(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is tested."""
    (tmp_path / "wrong.yaml").write_text(text)
    good = {"kind": "Incident", "name": "good", "events": [RUNS[2].events()[0]]}
    (tmp_path / "good.json").write_text(json.dumps(good))
    assert stepstream(["policy", "test", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "wrong.yaml" in error
    assert sentence in error


def test_limits_are_suggested_from_good_runs_and_marks(
    settings: Settings, clickhouse_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed runs and one marked as a real problem do not count; too few runs give no limit."""
    flags = ["--clickhouse-url", clickhouse_url]
    flags += ["--clickhouse-database", settings.clickhouse_database]
    with connect(settings) as client:
        client.command(
            "INSERT INTO runs_raw (run_day, trace_id, revision, closed, status, agent, start_time, "
            "cost_usd, steps, duration_us, input_tokens) "
            f"SELECT today(), 'good' || number, 2, true, if(number < 400, 'ok', 'error'), "
            f"'seller', toDateTime64('{NOW:%F %T}', 6, 'UTC'), "
            "if(number = 399, 100, (number + 1) / 1000), number % 20, 5000000, 10 FROM numbers(500)"
        )
        for number, verdict in enumerate((1, 0, 0)):
            client.command(
                "INSERT INTO findings_raw (finding_id, state, time, alert, agent, trace_id, value, "
                f"by, message, alert_id) VALUES ('m{number}', 'marked', now64(6), 'too-much', "
                f"'seller', 'good{399 - number}', {verdict}, 'ada', 'why', 'a{number}')"
            )
    suggest = ["policy", "suggest", "--agent", "seller", "--format", "json", *flags]
    assert stepstream([*suggest, "--false-alarms", "2%"]) == 0
    printed = json.loads(capsys.readouterr().out)
    cost = printed["limits"][0]
    # The run for $100 is marked as a real problem, so 399 runs are left.
    assert (cost["runs"], cost["limit"], cost["exceeded"]) == (399, 0.4, 0)
    assert printed["marks"] == [{"alert": "too-much", "right": 1, "wrong": 2}]
    Policy.model_validate(printed["policy"])
    assert stepstream([*suggest, "--false-alarms", "0.1%"]) == 1
    assert "needs at least 3,688 good runs, there are 399" in capsys.readouterr().err
    assert stepstream([*suggest, "--false-alarms", "none"]) == 2
    shown = ["sql", "SELECT verdict, marked_by, note FROM alert_marks ORDER BY alert_id", *flags]
    assert stepstream([*shown, "--format", "csv"]) == 0
    assert capsys.readouterr().out.split()[1:] == ["true,ada,why", "false,ada,why", "false,ada,why"]


def test_the_query_of_the_example_runs_as_the_reading_user(settings: Settings) -> None:
    """examples/policies/10: of the runs of this store none is reported, and nothing fails."""
    (written,) = read_documents(ROOT / "examples/policies/10-agent-without-success.yaml")
    policy = written.document
    assert isinstance(policy, Policy)
    (rule,) = policy.rules
    assert isinstance(rule, Sql)
    stats = SinkStats()
    assert evaluate(settings, Due(policy, rule, 0), [], stats, 1) == []
    assert (stats.rule_evaluations["agent-fails"], stats.rule_errors) == (1, {})


def test_a_misspelt_agent_is_named_with_the_nearest_one(
    settings: Settings, clickhouse_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --store only: an agent may be new. Patterns are not compared."""
    file = tmp_path / "p.yaml"
    file.write_text("kind: Policy\nname: p\nmatch: {agent: suport, task: 're*'}\n")
    flags = ["--clickhouse-url", clickhouse_url]
    flags += ["--clickhouse-database", settings.clickhouse_database]
    assert stepstream(["policy", "check", str(file), *flags]) == 0
    assert stepstream(["policy", "check", "--store", str(file), *flags]) == 1
    error = capsys.readouterr().err
    assert f"{file}:1: no run has agent suport; did you mean support?" in error
    file.write_text("kind: Policy\nname: p\nmatch: {agent: support}\n")
    assert stepstream(["policy", "check", "--store", str(file), *flags]) == 0
