"""The example of a detector in its own package passes the suite and equals the documented one."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from stepstream.schemas import rules
from stepstream.testing import DetectorCase, check_detector, ended, root
from tests.support.paths import DOCS, ROOT

PACKAGE = ROOT / "examples" / "detector_package"
PAGE = (DOCS / "detection.md").read_text()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of its module, which registers its rule for this test alone."""
    monkeypatch.setattr(rules.RULES, "_extensions", dict(rules.RULES.items()) | {})
    return runpy.run_path(str(PACKAGE / "acme_detectors.py"))


def test_it_passes_the_suite(package: dict[str, Any]) -> None:
    case = DetectorCase(
        "too many questions",
        package["TooManyQuestions"](rule="too_many_questions"),
        package["TooManyQuestionsDetector"],
        breaks=[root(), *(ended(n, n, tool="ask_human") for n in range(2, 6)), root(9)],
        calm=[root(), *(ended(n, n, tool="ask_human") for n in range(2, 5)), root(9)],
    )
    check_detector(case)


def test_its_rule_is_in_policies_and_in_the_list(package: dict[str, Any]) -> None:
    rule = rules.rule_from({"rule": "too_many_questions", "limit": 1})
    assert isinstance(rule, package["TooManyQuestions"])
    assert "| `too_many_questions` | a run | off |" in rules.markdown()


@pytest.mark.parametrize("name", ["acme_detectors.py", "policy.yaml"])
def test_the_page_shows_the_files_as_they_are(name: str) -> None:
    assert (PACKAGE / name).read_text() in PAGE


def test_the_list_of_rules_on_the_page_is_complete() -> None:
    """Made again with: python -m stepstream.schemas.rules."""
    assert rules.markdown() in PAGE
