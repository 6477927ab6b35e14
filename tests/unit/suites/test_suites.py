"""Suites: cases that are read, agents that are run, and what becomes of those that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import stepstream
from stepstream.cli.app import run
from stepstream.common.process import identity_of
from stepstream.evals.cases import CasesError, Suite, parse_suite
from stepstream.evals.gate.trials import Results, Trial, parse_results
from stepstream.releases.gates import GateRequest, ask
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.release import Release, hash_of
from stepstream.schemas.settings import Settings
from stepstream.suites.agent import AgentError, load_agent
from stepstream.suites.runner import Plan, Version, run_pair, run_suite
from tests.support.eval_results import MIXED, made
from tests.support.paths import ROOT
from tests.support.processes import wait_until

CASE = '{"id": "a", "input": "x", "expected": "yes"}'


def one_case(**fields: Any) -> Suite:
    return parse_suite("s.jsonl", json.dumps(json.loads(CASE) | fields))


def trial_of(agent: Any, suite: Suite | None = None, timeout_s: float = 60.0) -> Trial:
    """The one trial of a suite with one case."""
    done = run_suite(suite or one_case(), agent, "agent", [], Plan(timeout_s=timeout_s))
    return done.results.cases["a"][0]


def recording_agent(given: str) -> str:
    with stepstream.run("helper", agent="helper", input=given) as step:
        with step.tool("find", input={"q": given}) as call:
            call.set_output("found")
        step.set_output("yes, found")
    return "yes, found"


def plain_agent(_given: str) -> str:
    return "yes"


async def asynchronous_agent(_given: str) -> str:
    await asyncio.sleep(0)
    return "yes"


def wrong_agent(_given: str) -> str:
    return "no"


def raising_agent(_given: str) -> str:
    raise ValueError("no such order")


# Ends its process without an exception and without cleanup, as a crash in native code does.
def exiting_agent(_given: str) -> str:
    os._exit(7)


def endless_agent(_given: str) -> str:
    while True:
        time.sleep(1)


def forking_agent(given: str) -> str:
    # The child inherits the pipe of the result: unless it is ended, the runner waits for it.
    if child := os.fork():
        Path(given).write_text(str(child))
    else:
        time.sleep(600)
    print("text on standard output")
    return "yes"


@pytest.mark.parametrize("agent", [recording_agent, plain_agent, asynchronous_agent])
def test_agents_of_every_form_are_recorded(agent: Any, capfd: pytest.CaptureFixture[str]) -> None:
    # What an agent prints must not mix with the report on standard output.
    assert trial_of(agent).outcome is True
    assert capfd.readouterr().out == ""


def test_what_an_agent_starts_ends_with_its_trial(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A copy of its process, which would wait for ten minutes; its output is discarded."""
    file = tmp_path / "pid"
    assert trial_of(forking_agent, one_case(input=str(file))).outcome is True
    assert capfd.readouterr().out == ""
    wait_until(lambda: identity_of(int(file.read_text())) is None, 30, "the copy to end")


def test_the_steps_of_an_agent_are_checked() -> None:
    suite = one_case(checks=[{"check": "tools", "calls": ["find"]}])
    assert trial_of(recording_agent, suite).success is True
    failed = trial_of(plain_agent, suite)
    assert (failed.success, failed.reason) == (False, "not called: find")


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (raising_agent, "ValueError: no such order"),
        (exiting_agent, "its process ended with code 7"),
        (endless_agent, "not ended after 0.5 s"),
    ],
)
def test_an_agent_that_does_not_answer_has_crashed(agent: Any, reason: str) -> None:
    # A short limit for all would fail the others on a slow machine.
    timeout_s = 0.5 if agent is endless_agent else 60.0
    trial = trial_of(agent, timeout_s=timeout_s)
    assert (trial.crashed, trial.outcome, trial.reason) == (True, False, reason)


def test_documents_of_the_suite_are_checked_as_well() -> None:
    document = Criteria.model_validate(
        {"name": "x", "checks": [{"check": "answer", "excludes": ["no"]}]}
    )
    suite = parse_suite("s", '{"id": "a", "input": "x"}', [document])
    done = run_suite(suite, wrong_agent, "agent", [document], Plan())
    assert done.results.cases["a"][0].reason == "the answer contains 'no'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no cases"),
        (f"{CASE}\n{CASE}", "line 2: the case 'a' stands in line 1 too"),
        ('{"id": "a"}', "line 1: input is missing"),
        ('{"id": "a", "input": 1}', "nothing decides whether the case 'a' succeeds"),
        ('{"id": "a", "input": 1, "expectd": "x"}', "did you mean expected"),
        ("{", "line 1: not JSON"),
        (
            '{"id": "a", "input": 1, "checks": [{"check": "tools", "calls": ["b"]}, '
            '{"check": "never", "tools": ["b"]}]}',
            "b must never be called",
        ),
    ],
)
def test_cases_that_cannot_be_used_are_refused(text: str, words: str) -> None:
    with pytest.raises(CasesError, match=words):
        parse_suite("s.jsonl", text)


def test_the_version_of_a_suite_is_that_of_its_contents() -> None:
    assert one_case().version == one_case().version
    assert one_case().version != one_case(expected="no").version


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("examples.flaky_agent", "module:function"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("examples.flaky_agent:suport", "did you mean support"),
    ],
)
def test_agents_that_do_not_exist_are_named(reference: str, words: str) -> None:
    with pytest.raises(AgentError, match=words):
        load_agent(reference)


def test_the_example_is_run_twice_with_the_same_results_and_its_regression_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    files = {}
    for name, agent in (("v1", "support"), ("again", "support"), ("v2", "worse")):
        files[name] = tmp_path / f"{name}.jsonl"
        options = ["--agent", f"examples.flaky_agent:{agent}", "-n", "3", "-o", str(files[name])]
        assert run(["eval", "run", "examples/refunds.jsonl", *options]) == 0
    first, again = (
        [
            (trial.case, trial.trial, trial.success)
            for case in parse_results("r", files[name].read_text()).cases.values()
            for trial in case
        ]
        for name in ("v1", "again")
    )
    # Every trial has a seed of its own, derived from --seed, case and number.
    assert first == again
    sides = ["--baseline", str(files["v1"]), "--candidate", str(files["v2"])]
    policy = tmp_path / "gate.yaml"
    # Three trials of each case are few: only success is compared, with the whole error rate.
    policy.write_text("metrics: {success: {margin: 0.1, weight: 1}}")
    assert run(["eval", "gate", *sides, "--policy", str(policy)]) == 1
    assert "FAIL: success is worse" in capsys.readouterr().out
    assert run(["eval", "compare", str(files["v1"]), str(files["v2"])]) == 0
    assert capsys.readouterr().out.count("passed") == 2


def test_two_versions_run_in_turns_until_a_round_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The regression is found before the last round; without one all rounds are run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    policy = tmp_path / "gate.yaml"
    policy.write_text("rounds: [2, 3, 6]\nmetrics: {success: {margin: 0.1, weight: 1}}")
    command = ["eval", "pair", "examples/refunds.jsonl", "--policy", str(policy), "-n", "6"]
    command += ["--baseline", "examples.flaky_agent:support", "--results", str(tmp_path)]
    assert run([*command, "--candidate", "examples.flaky_agent:worse"]) == 1
    assert capsys.readouterr().out.startswith("FAIL: success is worse")
    found = [parse_results(name, (tmp_path / f"{name}.jsonl").read_text()) for name in SIDES]
    assert [one.header.planned for one in found] == [(2, 3, 6)] * 2
    done = {len(trials) for one in found for trials in one.cases.values()}
    assert done <= {2, 3}
    # The same verdict from the files, which name the plan.
    sides = [f"--{name}={tmp_path / name}.jsonl" for name in SIDES]
    assert run(["eval", "gate", *sides, "--policy", str(policy)]) == 1
    assert run([*command, "--candidate", "examples.flaky_agent:anwers"]) == 2


SIDES = ("baseline", "candidate")


def test_the_versions_begin_in_turns(tmp_path: Path) -> None:
    suite = parse_suite("s", "\n".join(CASE.replace('"a"', f'"{n}"') for n in range(4)))
    file = tmp_path / "began"

    def version(name: str) -> Version:
        def agent(_question: str) -> str:
            with file.open("a") as out:
                out.write(name)
            return "yes"

        return Version(name, agent)

    plan = Plan(trials=2, parallel=1)
    rounds: list[int] = []

    def decided(one: Results, _other: Results) -> bool:
        rounds.append(one.trials)
        return False

    first, second = run_pair(suite, (version("A"), version("B")), [], plan, (1, 2), decided)
    assert file.read_text() == "ABBAABBABAABBAAB"
    assert rounds == [4]
    assert (first.results.trials, second.results.trials) == (8, 8)


def test_a_suite_below_its_share_fails_with_junit_and_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "suite.jsonl"
    suite.write_text(CASE)
    (tmp_path / "my_agent_of_tests.py").write_text("def answer(text):\n    return 'no'\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ["--agent", "my_agent_of_tests:answer", "--junit", "j.xml", "--events", "e.jsonl"]
    assert run(["eval", "run", str(suite), *options]) == 0
    assert run(["eval", "run", str(suite), *options, "--fail-under", "0.5"]) == 1
    found = ElementTree.parse("j.xml").getroot()
    assert (found.attrib["tests"], found.attrib["failures"]) == ("1", "1")
    assert run(["validate", "e.jsonl"]) == 0
    assert run(["eval", "run", str(suite), "--agent", "my_agent_of_tests:anwer"]) == 2


def release(version: str) -> Release:
    content = {"agent": "support", "version": version, "prompts": {}, "tools": []}
    made = Release.model_validate(content | {"hash": "0" * 64})
    return made.model_copy(update={"hash": hash_of(made.model_dump(mode="json"))})


@pytest.mark.parametrize(
    ("rates", "outcome"),
    [(MIXED, "pass"), ([rate / 2 for rate in MIXED], "fail"), (None, "inconclusive")],
)
def test_a_release_is_promoted_by_its_results(
    rates: list[float] | None, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepstream.evals.gate.trials import lines_of

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "eval-results" / "support"
    folder.mkdir(parents=True)
    (folder / "v1.jsonl").write_text("\n".join(lines_of(made("a", MIXED))))
    if rates is not None:
        (folder / "v2.jsonl").write_text("\n".join(lines_of(made("b", rates, seed=5))))
    request = GateRequest(Settings(), release("v2"), release("v1"), "production")
    (verdict,) = ask(["evaluation"], request)
    assert verdict.outcome == outcome
    if rates is None:
        assert "no results of support@v2: stepstream eval run" in verdict.detail
