"""Parts of detectors that read contents: tool schemas, secrets, sketches; and their switch."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.json_schema import MAX_CHECKS, ToolSchema
from stepstream.schemas.policy import Policy
from stepstream.stream.detectors.content.arguments import ToolArguments
from stepstream.stream.detectors.content.forbidden import Forbidden
from stepstream.stream.detectors.content.retrieval import content_words
from stepstream.stream.detectors.content.sameness import error_form, similarity, sketch
from stepstream.stream.detectors.content.sensitive_forms import FORMS, found_in
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_bench import Bench, root, step

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "class": {"enum": ["economy", "business"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "who": {"$ref": "#/$defs/person"},
        "when": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        }
    },
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 20) | st.sampled_from(["", "x", "Rome", "economy"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "city", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from([*SCHEMA["properties"], "citty"]),  # type: ignore[misc]
    VALUES,
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(ARGUMENTS)
def test_schemas_accept_what_the_standard_s_own_library_accepts(
    arguments: dict[str, Any],
) -> None:
    """For what tools declare, right is right and wrong is wrong."""
    assert (not ToolSchema(SCHEMA).errors(arguments)) == jsonschema.Draft202012Validator(
        SCHEMA
    ).is_valid(arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"city": 3}, "'city' must be string, not integer 3"),
        ({}, "'city' is missing"),
        ({"city": "Rome", "dayz": 3}, "there is no parameter 'dayz'; did it mean 'days'?"),
        ({"city": "Rome", "days": 30}, "'days' must be at most 14, not 30"),
        (
            {"city": "Rome", "class": "first"},
            "'class' must be one of economy, business, not 'first'",
        ),
        ({"city": "Rome", "who": {}}, "'who.name' is missing"),
        ({"city": "Rome", "tags": ["a", 1]}, "'tags[1]' must be string, not integer 1"),
    ],
)
def test_each_error_has_a_sentence(arguments: dict[str, Any], error: str) -> None:
    """With the parameter's name, what it must be and what it was."""
    assert ToolSchema(SCHEMA).errors(arguments) == [error]


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
        {"name": "f", "input_schema": SCHEMA},
        {"name": "f", "parameters": SCHEMA},
        SCHEMA,
    ],
)
def test_schemas_come_in_every_provider_s_wrapping(declared: dict[str, Any]) -> None:
    """A tool is declared as its model's provider wants it."""
    assert ToolSchema(declared).errors({"city": "Rome"}) == []
    assert ToolSchema(declared).errors({"town": "Rome"})


def test_a_table_of_parameters_is_a_schema() -> None:
    """Some frameworks list parameters with their types, and a tool without any takes none."""
    assert ToolSchema({"query": {"type": "string", "description": "d"}}).errors({"q": "x"})
    assert ToolSchema({}).is_empty


def test_a_schema_cannot_make_much_work() -> None:
    """Schemas are untrusted: references stay inside them, and checks are counted."""
    # Three ways to itself: without a bound 3 to the power of its depth checks.
    loop: dict[str, Any] = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]}
    schema = ToolSchema(loop)
    assert isinstance(schema.errors({"a": 1}), list)
    assert MAX_CHECKS - schema._left <= MAX_CHECKS + 1
    # Nothing is downloaded, so no argument can be found wrong.
    assert ToolSchema({"$ref": "https://example.org/s.json"}).errors({"a": 1}) == []
    assert ToolSchema({"properties": {"a": {"type": 7}}}).errors({"a": 1}) == []


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("key", "use sk-proj-9fKd03kfa93Kd9a0sd9fk2Ls0dkf93" + "kd"),
        ("key", "AKIA" + "IOSFODNN7QRSTUVW"),
        ("key", "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"),
        ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq3kd93kfa\n"),
        ("key", "postgres://admin:s3cretpw@db.internal:5432/x"),
        ("card", "4539 1488 0343 6467"),
        ("card", "card 371449635398431."),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB29NWBK60161331926819"),
        ("email", "write to jane.doe@acme-corp.com"),
        ("phone", "+49 170 1234567"),
        ("us_ssn", "SSN: 536-22-8726"),
    ],
)
def test_sensitive_forms(form: str, text: str) -> None:
    """Known by shape and check digits; the message does not repeat them."""
    found = list(found_in(text, text.encode(), FORMS[form]))
    assert len(found) == 1
    assert found[0].hint not in ("", text)
    # Longer, it could be the secret itself.
    assert len(found[0].hint) < 30


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("key", "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("key", "AKIAIOSFODNN7EXAMPLE"),
        ("key", "set sk-your-key-here-123456789012"),
        ("key", "task-list_of_the_things_we_do_in_2026"),
        ("card", "4539 1488 0343 6468"),
        ("card", "order 12345678901234567"),
        ("card", "0000 0000 0000 0000"),
        ("card", "1726000000000000"),
        ("card", "0.4539148803436467"),
        ("iban", "DE89 3704 0044 0532 0130 01"),
        ("iban", "AB12 3456 7890 1234"),
        ("email", "write to user@example.com"),
        ("us_ssn", "call 536-22-8726"),
    ],
)
def test_ordinary_numbers_and_examples_are_no_secrets(form: str, text: str) -> None:
    """Precision first: a wrong check digit, a placeholder, an order's number."""
    assert list(found_in(text, text.encode(), FORMS[form])) == []


def test_sketches_measure_how_similar_two_inputs_are() -> None:
    """Close to the share of words in common; nothing is alike to nothing."""
    one, other = [b"w%d" % n for n in range(20)], [b"w%d" % n for n in range(10, 30)]
    assert similarity(sketch(one), sketch(one)) == 1.0
    # Ten words in common of thirty; the sketch has 256 bits, hence the tolerance.
    assert similarity(sketch(one), sketch(other)) == pytest.approx(1 / 3, abs=0.12)
    assert similarity(sketch([]), sketch([])) == 0.0


def test_words_come_in_the_order_of_the_text() -> None:
    """A long query is compared by its first words, in an order that no process changes."""
    names = [f"word{number}" for number in range(200)]
    assert content_words(" ".join(["the", *names, *names])) == [name.encode() for name in names]


@given(st.text(alphabet="0123456789 -ab.", max_size=60))
def test_the_sign_of_a_long_number_is_ten_digits_with_blanks_and_dashes_between(text: str) -> None:
    """The cheap check of the bytes equals removing them one by one: no card is missed."""
    without = text.replace(" ", "").replace("-", "")
    longest = max(map(len, re.findall(r"\d+", without)), default=0)
    sign, _ = FORMS["card"][0]
    assert sign(text, text.encode()) == (longest >= 10)


def test_errors_are_the_same_without_what_varies() -> None:
    """Paths, quotations and numbers do not make another error."""
    assert error_form("cannot open '/a/b' at line 3") == error_form("cannot open '/c/d' at line 77")
    assert error_form("cannot open") != error_form("cannot close")


def test_a_setting_turns_all_of_them_off() -> None:
    """No detector reads contents then, whatever policies contain."""
    for on in (True, False):
        bench = Bench(limits=AssembleLimits(max_run_age_us=10**15, content_detectors=on))
        bench.send(root("start", 0.0), 0.0)
        bench.send(step(2, "end", 1.0, kind="tool_call", tool="t", output="Error: boom"), 1.0)
        bench.send(root("end", 0.0, 3.0), 3.0)
        bench.wait(20)
        alerts = {finding["alert"] for finding in bench.findings()}
        assert alerts == ({"hidden-tool-error", "failure-not-retried"} if on else set())


def test_one_rule_can_be_turned_off() -> None:
    """``enabled: false`` in a policy."""
    bench = Bench(
        Policy.model_validate(
            {"name": "p", "rules": [{"rule": "hidden_tool_error", "enabled": False}]}
        )
    )
    bench.send(root("start", 0.0), 0.0)
    bench.send(step(2, "end", 1.0, kind="tool_call", tool="t", output="Error: boom"), 1.0)
    assert bench.findings() == []


def test_patterns_and_schemas_are_checked_when_a_policy_is_applied() -> None:
    """What cannot be read is refused with a reason, not found out at the first run."""
    with pytest.raises(ValueError, match="cannot be read"):
        Forbidden(rule="forbidden", patterns=("(",))
    with pytest.raises(ValueError, match="no JSON"):
        ToolArguments.model_validate(
            {"rule": "tool_arguments", "schemas": [{"tool": "t", "parameters": "{"}]}
        )
    made = ToolArguments.model_validate(
        {"rule": "tool_arguments", "schemas": [{"tool": "t", "parameters": SCHEMA}]}
    )
    assert json.loads(made.schemas[0].parameters) == SCHEMA
