"""How far a backtest agrees with the alerts that were really raised: 30 minutes of simulated load.

The whole pipeline as ``stepstream up`` runs it receives a scenario with every fault in real time. A
policy is changed after two fifths of the time and another one is applied after three fifths, so
that the range has runs before and after each change. Then ``stepstream backtest`` evaluates the
stored steps, and its alerts about single runs are compared with those in the store.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from benchmarks.bench import scratch_folder
from benchmarks.harness import Goal, Report
from benchmarks.stored import STEPS, wait_reached
from stepstream.common.settings import load, to_environment
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.simulate.generate import events
from stepstream.simulate.scenario import Scenario
from stepstream.sinks.clickhouse import connect

MINUTES: Final = {False: 30, True: 3}
GOAL: Final = 0.99
# A step that hangs is found after five minutes, or one.
SETTLE_S: Final = 90
COMMAND_S: Final = 900
AGENTS: Final = ("support", "billing", "research")
POLICY: Final = """
kind: Policy
name: costs
match: {{agent: support, environment: prod}}
mode: enforce
rules:
  - {{rule: run_cost, limit_usd: {limit}, action: stop}}
  - {{rule: expr, alert: many-calls, when: 'run.tool_calls > 12'}}
"""
OTHER: Final = """
kind: Policy
name: steps
rules:
  - {rule: run_steps, limit: 18}
  - {rule: step_duration, limit: 10s, kind: tool_call}
  - {rule: hung_step, after: 1m}
"""


def scenario(minutes: int) -> dict[str, Any]:
    """Three agents with every fault; some twenty steps a second."""
    agents: list[dict[str, Any]] = [
        {"agent": name, "environment": "prod", "task": "answer", "runs_per_minute": 20, "users": 9}
        for name in AGENTS
    ]
    agents[0]["versions"] = [{"version": "1.0"}, {"version": "1.1", "from": f"{minutes * 20}s"}]
    faults = ["tool_timeout", "cost_blowup", "loop", "silent_error", "hung_step"]
    return {
        "kind": "Scenario",
        "name": "agreement",
        "seed": 5,
        "duration": f"{minutes}m",
        "agents": agents,
        "faults": [
            *({"fault": name, "share": 0.03} for name in faults),
            {"fault": "version_regression", "version": "1.1", "cost_factor": 3},
            {"fault": "traffic_spike", "factor": 3, "from": "60s", "to": "120s"},
        ],
    }


class Commands:
    """Commands of the CLI, for one pipeline."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = os.environ | environment

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "stepstream", *words]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )

    def run(self, *words: str) -> str:
        """What it prints. Raises ``RuntimeError`` if it fails."""
        return finished(self.start(*words), COMMAND_S)


def finished(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What it has printed, at its end."""
    printed, _ = process.communicate(timeout=timeout_s)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} failed with {process.returncode}: {printed}")
    return printed


def measure(report: Report, arguments: argparse.Namespace) -> None:
    minutes = arguments.minutes or MINUTES[arguments.quick]
    with scratch_folder() as folder:
        home = arguments.keep or folder
        settings = load(
            data_dir=str(home / "data"), state_dir=str(home / "state"), quiet=True,
            gateway_port=-1, console_port=-1, metrics_port=-1,
        )  # fmt: skip
        with Pipeline(settings) as pipeline:
            commands = Commands(to_environment(pipeline.settings))
            found = _played(report, commands, pipeline.settings, folder, minutes)
    _reported(report, found)


def _played(
    report: Report, commands: Commands, settings: Settings, folder: Path, minutes: int
) -> dict[str, Any]:
    costs, other = folder / "costs.yaml", folder / "steps.yaml"
    costs.write_text(POLICY.format(limit=0.2))
    other.write_text(OTHER)
    load_file = folder / "scenario.json"
    plan = scenario(minutes)
    load_file.write_text(json.dumps(plan))
    commands.run("apply", "-f", str(costs))
    load = commands.start("simulate", str(load_file))
    time.sleep(minutes * 60 * 0.4)
    report.progress("policy costs is changed")
    costs.write_text(POLICY.format(limit=0.12))
    commands.run("apply", "-f", str(costs))
    time.sleep(minutes * 60 * 0.2)
    report.progress("policy steps is applied")
    commands.run("apply", "-f", str(other))
    report.progress(finished(load, minutes * 60 + COMMAND_S).strip())
    time.sleep(SETTLE_S)
    ended = sum(timed.event["phase"] == "end" for timed in events(Scenario.model_validate(plan), 0))
    with connect(settings) as client:
        wait_reached(client, STEPS, ended)  # a sink may be behind on a busy machine
    since = ["--since", f"{minutes * 2 + 10}m"]
    printed = commands.run("backtest", "-p", str(costs), *since, "--format", "json")
    found: dict[str, Any] = json.loads(printed)
    return found


def _reported(report: Report, found: dict[str, Any]) -> None:
    agreement = found["agreement"]
    missing, extra = (
        Counter(key["alert"] for key in agreement[name]) for name in ("missing", "extra")
    )
    report.table(
        "backtest",
        ("runs", "steps", "policy changes", "same alerts", "only then", "only now"),
        [
            (
                found["runs"],
                found["steps"],
                len(found["policy_changes"]),
                agreement["same"],
                missing.total(),
                extra.total(),
            )
        ],
    )
    if missing or extra:
        names = sorted({*missing, *extra})
        rows = [(name, missing[name], extra[name]) for name in names]
        report.table("alerts that differ", ("alert", "only then", "only now"), rows)
    report.goals.append(
        Goal("agreement with the alerts raised", agreement["share"], GOAL, "", at_most=False)
    )
    report.figures |= {"agreement": agreement["share"], "alerts_same": agreement["same"]}


def _parser() -> argparse.ArgumentParser:
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--minutes", type=int, default=0, help="of simulated load (30)")
    parser.add_argument("--keep", type=Path, help="folder of the engines' data, which stays")
    return parser


if __name__ == "__main__":
    harness.run("agreement", measure, _parser())
