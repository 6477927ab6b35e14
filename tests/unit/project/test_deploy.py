"""The manifests under deploy/ that run executors agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml

from stepstream.cli.app import build, command_tree
from stepstream.common.settings import load
from stepstream.schemas import metrics
from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.task_state import TaskStatus, WaitingFor
from tests.support.paths import ROOT

DEPLOY: Final = ROOT / "deploy"
KUBERNETES: Final[list[dict[str, Any]]] = list(
    yaml.safe_load_all((DEPLOY / "kubernetes/executor.yaml").read_text())
)
SCALED: Final[dict[str, Any]] = yaml.safe_load(
    (DEPLOY / "kubernetes/executor-keda.yaml").read_text()
)
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose/executors.yml").read_text())
_SELECTOR: Final = re.compile(r"(stepstream_\w+)\{([^}]*)\}")
_LABEL: Final = re.compile(r'(\w+)=~?"([^"]*)"')


def of_kind(kind: str) -> dict[str, Any]:
    return next(one for one in KUBERNETES if one["kind"] == kind)


def pod() -> dict[str, Any]:
    found: dict[str, Any] = of_kind("Deployment")["spec"]["template"]["spec"]
    return found


def drain_s(command: list[str]) -> float:
    return parse_duration_us(command[command.index("--drain") + 1]) / 1e6


def test_executors_have_time_to_drain_before_they_are_killed() -> None:
    (container,) = pod()["containers"]
    assert drain_s(container["command"]) < pod()["terminationGracePeriodSeconds"]
    service = COMPOSE["services"]["executor"]
    grace_s = parse_duration_us(service["stop_grace_period"]) / 1e6
    assert drain_s(service["command"]) < grace_s


@pytest.mark.parametrize(
    "command",
    [
        pod()["containers"][0]["command"],
        ["stepstream", *COMPOSE["services"]["executor"]["command"]],
    ],
    ids=["kubernetes", "compose"],
)
def test_the_command_is_one_of_ours(command: list[str]) -> None:
    name, *arguments = command[1:]
    options = {flag for one in command_tree(build(name)).commands[name].params for flag in one.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_variables_are_settings(tmp_path: Path) -> None:
    given = {one["name"]: one["value"] for one in pod()["containers"][0]["env"]}
    settings = load(environ={**given, "STEPSTREAM_STATE_DIR": str(tmp_path)})
    assert (settings.project, settings.environment) == ("shop", "prod")
    assert set(COMPOSE["services"]["executor"]["environment"]) <= {
        *("STEPSTREAM_KAFKA_BROKERS", "STEPSTREAM_PROJECT")
    }


def test_replicas_follow_metrics_that_the_worker_has() -> None:
    """With labels that these have, and states that tasks may have."""
    declared = {one.name: one for one in metrics.METRICS}
    queries = [one["metadata"]["query"] for one in SCALED["spec"]["triggers"]]
    assert len(queries) == 2
    for query in queries:
        name, labels = _SELECTOR.search(query).groups()  # type: ignore[union-attr]
        found = dict(_LABEL.findall(labels))
        assert set(found) <= set(declared[name].labels)
        states = {*get_args(TaskStatus), *get_args(WaitingFor)}
        assert set(found.get("state", "slot").split("|")) <= states


def test_manifests_name_the_same_deployment_and_slots() -> None:
    (container,) = pod()["containers"]
    command = container["command"]
    assert SCALED["spec"]["scaleTargetRef"]["name"] == of_kind("Deployment")["metadata"]["name"]
    # The threshold is what one executor can run at a time.
    slots = command[command.index("--slots") + 1]
    assert SCALED["spec"]["triggers"][0]["metadata"]["threshold"] == slots
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    budget = of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels.items()
