"""The eleven example policies: valid, documented, and passing their own tests."""

from __future__ import annotations

import pytest

from stepstream.admin.documents import read_documents
from stepstream.cli.app import run as stepstream
from stepstream.schemas.policy import Policy
from tests.support.paths import DOCS, ROOT

FILES = sorted((ROOT / "examples/policies").glob("*.yaml"))
ABOUT_MANY_RUNS = {"05-worse-version", "10-agent-without-success"}
"""Tested by a scenario below, and by tests/integration/test_backtest.py."""


def test_there_are_eleven_and_each_is_documented() -> None:
    page = (DOCS / "policies.md").read_text()
    assert len(FILES) == 11
    assert [file.stem for file in FILES if f"examples/policies/{file.name})" not in page] == []


def test_each_passes_its_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """And each of them has some, or is about many runs."""
    assert stepstream(["policy", "test", str(ROOT / "examples/policies")]) == 0, (
        capsys.readouterr().out
    )
    for file in FILES:
        for written in read_documents(file):
            assert isinstance(written.document, Policy)
            assert written.document.tests or file.stem in ABOUT_MANY_RUNS


def test_a_worse_version_is_found_in_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = ROOT / "examples/scenarios/version-regression.yaml"
    policy = ROOT / "examples/policies/05-worse-version.yaml"
    assert stepstream(["simulate", str(scenario), "--check", "-p", str(policy)]) == 0
    assert "passed  version-regression" in capsys.readouterr().out
