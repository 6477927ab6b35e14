"""Expressions: what they accept, what they refuse and where, and what an evaluation gives."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.expression.compiler import EvaluationError, Expression
from stepstream.schemas.expression.syntax import ExpressionError
from stepstream.stream.detectors.expression.variables import (
    VARIABLES,
    Moment,
    compiled,
    markdown,
    new_counts,
)
from tests.support.paths import DOCS
from tests.support.rule_cases import BEGIN, call, spend
from tests.support.stream_bench import Bench, policy, us


def moment() -> Moment:
    """A run of a root, two calls of search of which one failed, and a model call for $0.40."""
    bench = Bench()
    for at_s, item in (BEGIN, call(2, 1), call(3, 2, status="error"), spend(4, 3)):
        bench.send(item, at_s)
    run = bench.run
    step = run.steps[f"{3:016x}"]
    return Moment(run, step, us(bench.now_s), new_counts(run))


NOW = moment()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("run.steps == 4 && run.open_steps == 1", True),
        ("run.cost_usd > 0.3 && run.cost_usd < 1", True),
        ("run.calls['search'] == 2 && run.calls['other'] == 0", True),
        ("run.calls.search == 2", True),
        ("'search' in run.calls && !('other' in run.calls)", True),
        ("step.tool in ['search', 'fetch']", True),
        ("run.failed_calls.exists(t, t.startsWith('sea'))", True),
        ("run.calls.all(t, run.calls[t] > 2)", False),
        ("size(run.calls.filter(t, t.endsWith('ch'))) == 1", True),
        ("step.tool.contains('arc') ? run.errors == 1 : false", True),
        ("7 / 2 == 3 && -7 / 2 == -3 && -7 % 2 == -1 && 7.0 / 2.0 == 3.5", True),
        ("double(run.steps) * 0.5 == 2.0 && int(2.9) == 2 && string(1) + '2' == '12'", True),
        ("run.cost_usd / double(run.steps) >= 0.1  // a comment", True),
        ('step.status == "error" || 1 / 0 == 1', True),
        ("1 / 0 == 1 || step.status == 'error'", True),
        ("1 / 0 == 1 && step.status == 'ok'", False),
        ("[1, 2, 3][1] == 2 && size('abc') == 3 && 0x10 == 16", True),
        ("run.duration_s >= 0.0 && step.duration_us >= 0 && step.attempt == 1", True),
    ],
)
def test_it_means_what_cel_means(text: str, wanted: bool) -> None:
    assert Expression(text, VARIABLES).holds(NOW) is wanted


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_a_value_of_its_type(name: str) -> None:
    """And can be compared with a constant of it."""
    kinds = {"int": int, "double": float, "bool": bool, "string": str}
    variable = VARIABLES[name]
    assert isinstance(variable.read(NOW), kinds.get(variable.type, dict))
    if variable.type in kinds:
        compiled(f"{name} == {name}").holds(NOW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("run.cost > 1", "character 1: run.cost is unknown; did you mean run.cost_usd?"),
        ("step.tol == 'x'", "character 1: step.tol is unknown; did you mean step.tool?"),
        ("__import__('os') == 1", "there is no function __import__"),
        ("step.tool.matches('a+')", "there is no function matches"),
        ("step.tool.__class__ == 'x'", "character 11: a string has no field __class__"),
        ("run.steps > ", "character 13: a value is expected here, not the end"),
        ("run.steps > 1 1", "1 is not expected here"),
        ("run.steps", "its value is an int, not true or false"),
        ("run.steps == 'a'", "an int and a string cannot be compared"),
        ("run.cost_usd * 2 > 1.0", "write 2.0 for 2"),
        ("run.steps && true", "bool is expected, not an int"),
        ("'\\x41' == 'A'", "\\x is not supported"),
        ("[1, 'a'] == [1]", "the items of a list have one type"),
        ("run.calls.exists(t, run.calls.exists(u, true))", "within another macro"),
        ("run.calls.exists(1, true)", "write exists(x, CONDITION)"),
        ("9223372036854775808 > 1", "beyond 64 bits"),
        ("run.steps > 1 &\n run.errors > 0", "'&' is not part of the language"),
        ("run.steps > 1 &&\n run.erors > 0", "line 2, character 2: run.erors is unknown"),
        ("run > 1", "run alone is no value"),
        (" || ".join(["run.steps > 1"] * 60), "more than 200 names"),
        ("(" * 40 + "true" + ")" * 40, "nested more than 16 deep"),
        ("!" * 40 + "true", "nested more than 16 deep"),
        (f"run.steps in {list(range(101))}", "more than 100 items"),
        ("true " + " " * 5000, "5005 characters"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Expression(text, VARIABLES)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / (run.steps - 4) == 1", "division by zero at character 3"),
        ("1 % (run.steps - 4) == 1", "division by zero"),
        ("1.0 / (run.cost_usd * 0.0) == 1.0", "division by zero"),
        ("[1][run.steps] == 1", "beyond the end of a list"),
        ("[1][-1] == 1", "beyond the end of a list"),
        ("9223372036854775807 + run.steps > 1", "a number beyond 64 bits"),
        ("int(run.cost_usd * 1e300) > 1", "beyond 64 bits"),
    ],
)
def test_an_evaluation_without_a_result_names_the_place(text: str, reason: str) -> None:
    with pytest.raises((EvaluationError, ExpressionError), match=reason):
        Expression(text, VARIABLES).holds(NOW)


@given(st.text(alphabet="rунstep.cols_ud><=!&|()[]'\"+-*/%?:, 019\n", max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """No other exception leaves the parser or an evaluation."""
    with suppress(ExpressionError, EvaluationError):
        Expression(text, VARIABLES).holds(NOW)


@given(
    st.recursive(
        st.sampled_from(["run.steps > 1", "step.ended", "false", "1 / 0 == 1", "run.cost_usd < 1"]),
        lambda inner: st.builds("(({}) && ({}) || !({}))".format, inner, inner, inner),
        max_leaves=12,
    )
)
def test_any_condition_is_true_false_or_without_result(text: str) -> None:
    with suppress(EvaluationError):
        assert Expression(text, VARIABLES).holds(NOW) in (True, False)


def test_a_text_is_compiled_once() -> None:
    assert compiled("run.steps > 77") is compiled("run.steps > 77")


def test_it_shows_the_values_that_it_used() -> None:
    expression = compiled("run.steps > 1 && step.tool == 'search' && run.calls['a'] < 1")
    assert expression.values(NOW) == "run.steps 4, step.tool search"


def test_the_page_lists_every_variable() -> None:
    """docs/policies.md has the table; this prints the command that makes it."""
    page = (DOCS / "policies.md").read_text()
    table = "\n".join(markdown())
    assert table in page, "python -m stepstream.stream.detectors.expression.variables"


def test_a_rule_without_a_result_is_reported_and_evaluated_again() -> None:
    """One alert about the rule, each failure counted; the rule fires once it has a result."""
    rule = {"rule": "expr", "when": "10 / (run.steps - 2) > 0", "alert": "odd"}
    bench = Bench(policy(rule))
    for at_s, item in (BEGIN, call(2, 1), call(3, 2)):
        bench.send(item, at_s)
    found = bench.findings()
    assert [(one["alert"], one["project"]) for one in found[:1]] == [("rule-failed", "stepstream")]
    assert "division by zero at character 4" in found[0]["message"]
    assert bench.logic.counters.rule_errors == {"odd": 1}
    assert [one["alert"] for one in found[1:]] == ["odd"]
    assert not bench.run.off
