"""A detector in its own installed package: a real worker runs it, each command knows its rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstream.common.settings import to_environment
from tests.support.paths import ROOT
from tests.support.worker_world import World, step, trace

PACKAGE = ROOT / "examples" / "detector_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the package into."""
    target = tmp_path_factory.mktemp("site")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, str(PACKAGE)],
        check=True,
        timeout=120,
        env={**os.environ, "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return target


@pytest.fixture(scope="module")
def world(
    kafka_bootstrap: str, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A worker whose Python finds the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(installed), str(ROOT))))
        made = World(kafka_bootstrap, tmp_path_factory.mktemp("worker"))
        made.start()
        yield made
        made.collected.close()
        made.process.kill()


def stepstream(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "stepstream", *arguments],
        env={**os.environ, **to_environment(world.settings)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_policy_that_names_the_rule_raises_its_alerts(world: World) -> None:
    applied = stepstream(world, "apply", "-f", str(PACKAGE / "policy.yaml"))
    assert applied.returncode == 0, applied.stderr
    for _ in range(20):  # runs that began before the worker has read the policy keep their rules
        run = trace()
        calls = [step(run, n, agent="support", tool="ask_human") for n in range(2, 5)]
        world.send(step(run, 1, "start", agent="support"), *calls, step(run, 1, agent="support"))
        world.final(run)
        if any(value["trace_id"] == run for value in found(world)):
            break
    alert = world.wait_for("alerts", lambda value: value.get("trace_id") == run)
    assert (alert["rule"], alert["alert"], alert["policy"], alert["severity"]) == (
        "too_many_questions",
        "too-many-questions",
        "questions",
        "error",
    )
    assert (alert["message"], alert["value"]) == ("people were asked 3 times", 3.0)


def found(world: World) -> list[dict[str, object]]:
    """The findings of the rule so far."""
    world.collected.read(0.5)
    values = [record.value for record in world.collected.records["findings"]]
    return [value for value in values if value["rule"] == "too_many_questions"]


def test_without_the_package_the_rule_is_an_error_with_file_and_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    refused = stepstream(world, "apply", "-f", str(PACKAGE / "policy.yaml"))
    assert refused.returncode != 0
    assert "policy.yaml:5" in refused.stderr
    assert "there is no rule 'too_many_questions'" in refused.stderr
