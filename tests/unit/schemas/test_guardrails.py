"""Guardrails of policies: what a document may contain, and what is decided about a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.argument_repair import repaired
from stepstream.schemas.documents import WrongDocument, decode_document, document_of
from stepstream.schemas.expression.compiler import EvaluationError, Expression
from stepstream.schemas.expression.syntax import ExpressionError
from stepstream.schemas.expression.values import Variable
from stepstream.schemas.guardrail_check import Bound, Call, GuardrailBook, evaluate
from stepstream.schemas.guardrails import (
    MAX_SCHEMA_BYTES,
    VARIABLES,
    GuardedPolicy,
    decode_guarded,
    encode_guarded,
)
from stepstream.schemas.json_schema import ToolSchema
from stepstream.schemas.json_schema_fast import quick_test
from stepstream.schemas.policy import Policy
from tests.support.paths import DOCS

SCHEMA = {
    "type": "object",
    "required": ["order"],
    "properties": {"order": {"type": "integer"}, "usd": {"type": "number", "maximum": 100}},
}
FORBIDDEN = {"name": "a", "check": "forbidden", "tools": ["delete_*"]}
ARGUMENTS = {"name": "b", "check": "arguments", "tools": ["refund"], "schema": SCHEMA}


def document(*guardrails: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "Policy", "name": "p", "mode": "enforce", "guardrails": guardrails, **more}


def book(*guardrails: dict[str, Any], **more: Any) -> GuardrailBook:
    policy = document_of(document(*guardrails, **more))
    assert isinstance(policy, Policy)
    assert policy.guarded is not None
    return GuardrailBook([policy.guarded])


def decided(
    args: Any, *guardrails: dict[str, Any], kind: str = "tool_call", name: str = "refund"
) -> list[tuple[str, str]]:
    found = book(*guardrails)
    model = name if kind == "llm_call" else ""
    call = Call(kind, name, model, labels={"user_id": "u-1"}, read_args=lambda: args)
    made = evaluate(found.of(kind, name, model, {}), call).made
    return [(one.bound.guardrail.name, one.decision) for one in made]


def condition(when: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "check": "expr", "when": when, **more}


# --- documents ---


@pytest.mark.parametrize(
    ("guardrail", "reason"),
    [
        ({**FORBIDDEN, "check": "forbiden"}, "did you mean forbidden?"),
        ({**FORBIDDEN, "tool": "x"}, "tool is unknown; did you mean tools?"),
        ({"name": "a", "check": "forbidden"}, "name the calls that it is for"),
        ({"name": "a", "check": "approval"}, "name the calls that it is for"),
        ({**ARGUMENTS, "schema": {}}, "schema is empty"),
        ({**ARGUMENTS, "schema": {"enum": ["x" * MAX_SCHEMA_BYTES]}}, "are the most"),
        (condition("arg.usd > 1"), "arg.usd is unknown; did you mean args?"),
        (condition("run.user == 'a'"), "did you mean run.user_id?"),
        (condition("args.usd >"), "a value is expected here"),
        (condition("args.usd + 1"), ""),
        (condition("step.name + 1 == 'a'"), "have no +"),
        (condition("true", action="repair"), "action: repair and set"),
        (condition("true", set={"a": 1}), "action: repair and set"),
        ({"name": "a", "check": "budget_left"}, "name what must be left"),
        ({"name": "a", "check": "budget_left", "usd": 1, "action": "repair"}, "action"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(guardrail: dict[str, Any], reason: str) -> None:
    if not reason:  # whether a JSON value is true or false is known when it is read
        document_of(document(guardrail))
        return
    with pytest.raises(WrongDocument) as error:
        document_of(document(guardrail))
    assert reason in str(error.value)


def test_names_of_a_policys_guardrails_are_distinct() -> None:
    with pytest.raises(WrongDocument, match="two guardrails share the name a"):
        document_of(document(FORBIDDEN, FORBIDDEN))


def test_a_document_and_a_record_are_the_same_after_reading_them_again() -> None:
    """The field ``schema`` has another name in Python."""
    policy = document_of(document(FORBIDDEN, ARGUMENTS, condition("args.usd > 1")))
    assert isinstance(policy, Policy)
    assert decode_document(policy.model_dump_json()) == policy
    assert policy.guarded is not None
    assert decode_guarded(encode_guarded(policy.guarded)) == policy.guarded
    plain = document_of({"kind": "Policy", "name": "p"})
    assert isinstance(plain, Policy)
    assert plain.guarded is None


# --- selection ---


def test_a_book_selects_by_run_and_call() -> None:
    models = {"name": "m", "check": "forbidden", "models": ["gpt-*"]}
    off = {**FORBIDDEN, "name": "off", "enabled": False}
    found = book(FORBIDDEN, off, models, condition("true"), match={"agent": "support"})

    def names(kind: str, name: str, model: str = "", agent: str = "support") -> list[str]:
        return [one.guardrail.name for one in found.of(kind, name, model, {"agent": agent})]

    assert names("tool_call", "delete_all") == ["a", "c"]
    assert names("retrieval", "delete_all") == ["a", "c"]
    assert names("tool_call", "gpt-4o") == ["c"]
    assert names("llm_call", "delete_all", "gpt-4o") == ["m", "c"]
    assert names("tool_call", "delete_all", agent="other") == []


def test_policies_apply_in_the_order_of_their_names() -> None:
    first = GuardedPolicy.model_validate({"name": "b", "guardrails": [FORBIDDEN]})
    second = GuardedPolicy.model_validate({"name": "a", "guardrails": [FORBIDDEN]})
    bounds = GuardrailBook([first, second]).of("tool_call", "delete_x", "", {})
    assert [one.policy for one in bounds] == ["a", "b"]


# --- decisions ---


@pytest.mark.parametrize(
    ("when", "args", "wanted"),
    [
        ("args.usd > 100", {"usd": 101}, "refused"),
        ("args.usd > 100", {"usd": 100.0}, ""),
        ("args.usd > 100", {}, "failed"),
        ("args.usd > 100", {"usd": "101"}, "failed"),
        ("args.usd > 100", None, "failed"),
        ("has(args.usd) && args.usd > 100", {}, ""),
        ("has(args.a.b)", {"a": {"b": None}}, "refused"),
        ("has(args.a.b)", {}, ""),
        ("args.order == '7'", {"order": 7}, ""),
        ("args.order == 7", {"order": 7.0}, "refused"),
        ("args.paid == 1", {"paid": True}, ""),
        ("args.paid", {"paid": True}, "refused"),
        ("!args.paid", {"paid": "yes"}, "failed"),
        ("args.items.exists(i, i.price * i.count > 50)", {"items": [{"price": 9, "count": 6}]},
         "refused"),
        ("args.items.all(i, i in ['a', 'b'])", {"items": ["a", "c"]}, ""),
        ("args.items[0] == 'a' && size(args.items) == 2", {"items": ["a", "c"]}, "refused"),
        ("args['order id'] == 7", {"order id": 7}, "refused"),
        ("'usd' in args", {"usd": 1}, "refused"),
        ("args.country in ['DE', 'FR']", {"country": "US"}, ""),
        ("args.sql.startsWith('DROP')", {"sql": "DROP TABLE x"}, "refused"),
        ("args.sql.startsWith('DROP')", {"sql": 7}, "failed"),
        ("args.contains('DROP')", "DROP TABLE x", "refused"),
        ("double(args.usd) / 2.0 > 50.0", {"usd": "101"}, "refused"),
        ("args.usd / 0 > 1", {"usd": 1}, "failed"),
        ("-args.usd < -100", {"usd": 101}, "refused"),
        ("run.user_id != 'u-1'", {}, ""),
        ("run.budget_left_usd < 1.0", {}, ""),
        ("step.tool == 'refund' && step.model == ''", {}, "refused"),
        ("(args.big ? args.usd : 0) > 100", {"big": True, "usd": 101}, "refused"),
    ],
)  # fmt: skip
def test_conditions_over_arguments(when: str, args: Any, wanted: str) -> None:
    assert decided(args, condition(when)) == ([("c", wanted)] if wanted else [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
        max_leaves=8,
    ),
    st.recursive(
        st.sampled_from(["args", "1", "'a'", "2.5", "true", "args.a", "args[0]", "args.b.c"]),
        lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(
            ["+", "-", "*", "/", "%", "<", "==", "&&", "||", "in"]), inner),
        max_leaves=6,
    ),
)  # fmt: skip
def test_any_expression_over_any_json_has_a_value_or_none(args: Any, text: str) -> None:
    """No other exception leaves an evaluation."""
    variables = {"args": Variable(VARIABLES["args"].type, lambda m: m.args, "")}
    try:
        Expression(text, variables).holds(Call("tool_call", "t", read_args=lambda: args))
    except (ExpressionError, EvaluationError):
        return


def test_the_first_refusal_decides_and_repairs_are_seen_by_the_next() -> None:
    cap = condition("args.usd > 100", action="repair", set={"usd": 100})
    ask = {"name": "ask", "check": "approval", "tools": ["refund"], "when": "args.usd > 100"}
    assert decided({"usd": 500}, ask, cap) == [("ask", "suspended"), ("c", "repaired")]
    assert decided({"usd": 500}, cap, ask) == [("c", "repaired")]
    no = {"name": "no", "check": "forbidden", "tools": ["refund"]}
    assert decided({"usd": 500}, ask, no, cap) == [("ask", "suspended"), ("no", "refused")]


@pytest.mark.parametrize(
    ("given_arguments", "wanted"),
    [
        ({"order": 7, "usd": 500}, {"order": 7, "usd": 100}),
        ({"order": "7"}, {"order": 7, "size": "m"}),
        ({"order": "7.5"}, {"order": 7.5, "size": "m"}),
        ({"order": 7, "gift": " TRUE ", "size": "l"}, {"order": 7, "gift": True, "size": "l"}),
        ({"order": 7, "colour": "red"}, {"order": 7, "size": "m"}),
        ({"order": "9" * 40}, {"order": "9" * 40, "size": "m"}),
        ({"order": "nan"}, {"order": "nan", "size": "m"}),
    ],
)
def test_arguments_are_repaired_as_the_schema_states(
    given_arguments: dict[str, Any], wanted: dict[str, Any]
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "order": {"type": "integer"},
            "usd": {"type": "number", "minimum": 0, "maximum": 100},
            "gift": {"type": "boolean"},
            "size": {"type": "string", "default": "m"},
        },
    }
    made = repaired(schema, given_arguments)
    assert {**made, "size": made["size"]} == {"size": "m", **wanted}
    again = repaired(schema, made)
    assert again == made
    if wanted.get("order") == 7:
        assert ToolSchema(schema).errors(made) == []


def test_a_failure_is_one_of_its_guardrail_alone() -> None:
    """Those after it are evaluated."""

    def fail() -> Any:
        raise RuntimeError("secret text")

    found = book(condition("args.a == 1"), FORBIDDEN)
    call = Call("tool_call", "delete_x", read_args=fail)
    verdict = evaluate(found.of("tool_call", "delete_x", "", {}), call)
    assert [one.decision for one in verdict.made] == ["failed", "refused"]
    assert verdict.made[0].reason == "it could not be evaluated: RuntimeError"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats(-2, 12) | st.text("ab", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
    ),
    max_leaves=6,
)
_LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "boolean", "integer", "number", "null"])},
    optional={
        "minimum": st.integers(0, 3),
        "maximum": st.integers(5, 9),
        "minLength": st.integers(0, 2),
        "maxLength": st.integers(2, 3),
        "enum": st.lists(st.integers(0, 5), max_size=3),
        "nullable": st.booleans(),
    },
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner})
        | st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            },
            optional={
                "required": st.lists(st.sampled_from("abc"), max_size=2),
                "additionalProperties": st.booleans(),
            },
        )
    ),
    max_leaves=6,
)


@given(_SCHEMAS, _VALUES)
def test_the_quick_test_allows_nothing_that_the_full_check_refuses(schema: Any, value: Any) -> None:
    if quick_test(schema)(value):
        assert ToolSchema(schema).errors(value) == []


def test_the_quick_test_knows_the_usual_form() -> None:
    fits = quick_test(SCHEMA)
    assert fits({"order": 7})
    assert fits({"order": 7, "usd": 99.5})
    assert not fits({"order": True})
    assert not fits({"order": 7, "usd": 101})
    assert not fits({"order": 7, "colour": "red"})
    assert not fits({})


def test_bound_names_policy_and_guardrail() -> None:
    (bound,) = book(FORBIDDEN).of("tool_call", "delete_x", "", {})
    assert isinstance(bound, Bound)
    assert bound.title == "p/a"


def test_the_page_has_the_table_of_variables() -> None:
    rows = [f"| `{name}` | {one.type} | {one.meaning} |" for name, one in VARIABLES.items()]
    assert "\n".join(rows) in (DOCS / "guardrails.md").read_text()
