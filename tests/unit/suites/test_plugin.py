"""The pytest plugin, as a user's test suite uses it."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from stepstream.evals.gate.trials import parse_results
from tests.support.paths import ROOT

pytest_plugins = ["pytester"]

CASES = """
{"id": "seven", "input": 7, "expected": "seven"}
{"id": "odd", "input": 1, "expected": "seven"}
"""
INI = """[pytest]
addopts = --strict-markers
asyncio_default_fixture_loop_scope = function
"""
TESTS = """
import os
import pytest
import stepstream

@stepstream.tool
def look_up(number):
    return {7: "seven"}.get(number, "?")

@stepstream.agent
def agent(number):
    return look_up(number)

@pytest.mark.suite("cases.jsonl", agent=agent)
def test_numbers(trials):
    trials.assert_success(at_least=0.5)

def test_the_fixture(recorded):
    agent(7)
    assert recorded.only_run().tools == ["look_up"]
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a suite of two cases, of which the agent solves one."""
    pytester.makefile(".jsonl", cases=CASES)
    pytester.makepyfile(test_agent=TESTS)
    pytester.makeini(INI)
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    # As the entry point loads it where the package is installed.
    plugin = ("-p", "stepstream.suites.plugin")
    return project.runpytest_inprocess("-p", "no:cacheprovider", *plugin, *options)


def test_each_case_is_a_test_with_its_trials(project: pytest.Pytester) -> None:
    result = run(project, "--stepstream-trials", "3", "-v")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            "*test_numbers?seven? PASSED*",
            "*test_numbers?odd? FAILED*",
            "*AssertionError: 0 of 3 trials succeeded: the answer does not contain 'seven'*",
            "stepstream: cases.jsonl: 3 of 6 trials succeeded, 0 unknown",
        ]
    )


@pytest.mark.parametrize("processes", [(), ("-p", "xdist", "-n", "2")])
def test_results_and_recordings_are_written(
    processes: tuple[str, ...], project: pytest.Pytester
) -> None:
    """With pytest-xdist the processes' results are put together."""
    options = ("--stepstream-results", "out/r.jsonl", "--stepstream-record", "calls")
    run(project, *options, *processes)
    results = parse_results("r", (project.path / "out" / "r.jsonl").read_text())
    assert {case: found[0].outcome for case, found in results.cases.items()} == {
        "seven": True,
        "odd": False,
    }
    assert (results.header.suite, results.header.agent) == ("cases", "test_agent:agent")
    assert len(list((project.path / "calls").iterdir())) == 2


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ('@pytest.mark.suite("no.jsonl", agent=f)\ndef test_a(trials): ...', "No such file"),
        ('@pytest.mark.suite("cases.jsonl", agent=5)\ndef test_a(trials): ...', "agent is a func"),
        ('@pytest.mark.suite("cases.jsonl")\ndef test_a(trials): ...', "missing 1 required"),
        ('@pytest.mark.suite("cases.jsonl", agent=f)\ndef test_a(): ...', "takes the fixture tri"),
        ('@pytest.mark.suite("bad.jsonl", agent=f)\ndef test_a(trials): ...', "line 1: not JSON"),
    ],
)
def test_wrong_markers_are_explained(test: str, words: str, pytester: pytest.Pytester) -> None:
    pytester.makefile(".jsonl", cases=CASES, bad="{")
    pytester.makepyfile(test_wrong=f"import pytest\ndef f(x): return x\n{test}")
    pytester.makeini(INI)
    result = run(pytester)
    assert result.ret != 0
    result.stdout.fnmatch_lines([f"*{words}*"])


def test_a_case_without_a_known_outcome_has_not_succeeded() -> None:
    from stepstream.evals.gate.trials import Trial
    from stepstream.suites.plugin import Trials

    unknown = Trials([Trial("a", 0, reason="contents are missing")])
    assert unknown.share is None
    with pytest.raises(AssertionError, match="0 of 1 trials succeeded: contents are missing"):
        unknown.assert_success(at_least=0.0)


def test_a_suite_without_trials_is_refused(project: pytest.Pytester) -> None:
    result = run(project, "--stepstream-trials", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads(Path(ROOT / "pyproject.toml").read_text())["project"]
    module = import_module(project["entry-points"]["pytest11"]["stepstream.suites.plugin"])
    assert hasattr(module, "pytest_addoption")
