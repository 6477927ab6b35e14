"""One walk through the life of a policy, by the commands that a person types.

Two releases are promoted. A regression of the second one is simulated and raises alerts; a run is
saved, the policy is tightened until its test passes, the backtest shows the money, and the next run
is evaluated by the new revision. The release is rolled back, and the next run carries the old one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepstream.cli.app import run as stepstream
from stepstream.common.settings import to_environment
from stepstream.local.supervisor import Pipeline
from stepstream.producers.tracer import Tracer
from stepstream.schemas.settings import Settings
from stepstream.simulate.generate import events
from stepstream.simulate.scenario import Scenario
from stepstream.sinks.clickhouse import connect
from tests.support.processes import wait_until
from tests.support.release_folder import write_folder

SCENARIO = """
kind: Scenario
name: walk
seed: {seed}
duration: 8s
agents:
  - agent: support
    environment: prod
    runs_per_minute: 90
    least_calls: 6
    most_calls: 6
    step_takes: 20ms
    cost_usd: 0.01
    versions: [{{version: "v1"}}, {{version: "v2", from: 2s}}]
faults:
  - {{fault: version_regression, version: "v2", cost_factor: 10, error_rate: 0}}
"""
POLICY = """
kind: Policy
name: support-costs
match: {{agent: support, environment: prod}}
mode: enforce
rules:
  - {{rule: run_cost, limit_usd: {limit}, action: stop}}
"""


@pytest.fixture(scope="module")
def settings(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A worker and a sink of this module's own."""
    name = f"walk_{uuid.uuid4().hex[:8]}"
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(tmp_path_factory.mktemp("walk")),
        partitions=2,
        close_after="500ms",
        gateway_port=-1,
        console_port=-1,
        quiet=True,
    )
    with Pipeline(given) as pipeline:
        yield pipeline.settings


def rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with connect(settings, readonly=True) as client:
        return list(client.query(sql).named_results())


def runs_of(scenario: str) -> int:
    made = Scenario.model_validate(yaml.safe_load(scenario))
    return len({timed.event["trace_id"] for timed in events(made, 0)})


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_from_a_regression_to_a_revision_that_stops_it_and_a_rollback(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)

    def command(*words: str, code: int = 0) -> str:
        assert stepstream(list(words)) == code, capsys.readouterr()
        return capsys.readouterr().out

    releases = {
        version: write_folder(tmp_path / version, version=version, tone=f"Tone of {version}.")
        for version in ("v1", "v2")
    }
    for version, folder in releases.items():
        command("build", str(folder), "--publish")
        promoted = command("promote", f"support@{version}", "--wait", "120s")
        assert f"production of support is {version}" in promoted

    # The policy in force is loose; runs of the new version exceed it late.
    policy = written(tmp_path, "costs.yaml", POLICY.format(limit=0.25))
    command("apply", "-f", policy)
    command("simulate", written(tmp_path, "one.yaml", SCENARIO.format(seed=1)))
    raised = wait_until(
        lambda: rows(
            settings,
            "SELECT trace_id, agent_version, policy_revision FROM alerts AS a "
            "WHERE alert = 'run-cost' AND trace_id IN (SELECT trace_id FROM runs WHERE closed)",
        ),
        120,
        "alerts about the new version",
    )
    assert {(one["agent_version"], one["policy_revision"]) for one in raised} == {("v2", 1)}
    # The backtest below counts as successes the runs whose ends are stored.
    runs = runs_of(SCENARIO.format(seed=1))
    wait_until(
        lambda: rows(settings, "SELECT count() AS n FROM runs WHERE closed") == [{"n": runs}],
        120,
        "the ends of all runs",
    )

    # A run is saved, with the wish that it is found before a fifth of its cost is spent.
    saved = tmp_path / "incidents" / "costly.json"
    saved.parent.mkdir()
    trace_id = raised[0]["trace_id"]
    assert "expected: run-cost" in command("incident", "save", trace_id, "-o", str(saved))
    content = json.loads(saved.read_text())
    content["expect"] = [{"alert": "run-cost", "by_cost_share": 0.25}]
    content["allow_others"] = True
    saved.write_text(json.dumps(content))
    late = command("policy", "test", str(saved.parent), "-p", policy, code=1)
    assert "of the cost was spent, wanted by 25%" in late

    # Tightened, the test passes, and the backtest shows what it would have saved.
    written(tmp_path, "costs.yaml", POLICY.format(limit=0.05))
    assert "passed" in command("policy", "test", str(saved.parent), "-p", policy)
    printed = command("backtest", "--policy", policy, "--since", "1h", "--format", "json")
    report = json.loads(printed)
    assert report["saved_nanos"] > 0
    assert report["stopped"]
    assert report["stopped_in_error"] == len(report["stopped"])  # each of them went on to succeed
    assert "would have stopped or paused" in command(
        "backtest", "--policy", policy, "--since", "1h"
    )

    # Applied, the next runs are evaluated by the new revision.
    assert "policy/support-costs changed" in command("apply", "-f", policy)
    wait_until(
        lambda: (
            command("simulate", written(tmp_path, "two.yaml", SCENARIO.format(seed=2)))
            and rows(
                settings,
                "SELECT trace_id FROM alerts WHERE alert = 'run-cost' AND policy_revision = 2",
            )
        ),
        120,
        "an alert of the second revision",
    )
    listed = json.loads(
        command("get", "policy", "support-costs", "--revisions", "--format", "json")
    )
    assert [row["revision"] for row in listed] == [2, 1]

    roll_back(settings, command)


def roll_back(settings: Settings, command: Callable[..., str]) -> None:
    """An agent that follows the label carries the old release from its next run on, without a
    restart.
    """
    agent = Tracer(settings.model_copy(update={"environment": "prod"}))
    release = agent.release("support", follow=True, wait_s=60)

    def run() -> str:
        with agent.run("support") as made, made.tool("lookup_order"):
            pass
        assert agent.flush(60)
        return str(made.trace_id)

    def stored(trace_id: str) -> tuple[Any, ...]:
        sql = f"SELECT agent_version, config_drift FROM runs WHERE closed AND trace_id='{trace_id}'"
        (found,) = wait_until(lambda: rows(settings, sql), 120, "the run")
        return tuple(found.values())

    assert release.version == "v2"
    assert stored(run()) == ("v2", [])
    rolled_back = command("rollback", "support", "--reason", "costs", "--wait", "120s")
    assert "production of support is v1, before v2" in rolled_back
    wait_until(lambda: release.version == "v1", 120, "the old release in the agent")
    assert stored(run()) == ("v1", [])
    agent.close()
    # The simulated runs used no release, although their agent has some.
    (drifted,) = rows(settings, "SELECT count() AS n FROM runs WHERE has(config_drift, 'none')")
    assert drifted["n"] > 10
