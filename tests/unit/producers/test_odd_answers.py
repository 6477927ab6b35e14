"""Answers with fields that no client documents:

pieces of calls in odd orders, amounts in odd places, values of any kind.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from stepstream.producers.responses.reader import read_response
from stepstream.producers.responses.streamed import read_stream
from stepstream.producers.responses.usage import charge_of
from tests.support.client_answers import PLAIN, chat, piece
from tests.support.client_streams import STREAMS
from tests.support.sdk import traced

TWICE = [("w", {"x": 1}), ("w", {"x": 2})]
ODD_PIECES: dict[str, tuple[list[tuple[Any, ...]], list[tuple[str, Any]]]] = {
    "the same tool twice, all of index 0, no ids": (
        [("w", '{"x": 1}', 0), ("w", '{"x": 2}', 0)],
        TWICE,
    ),
    "the same tool twice, no index, no ids": ([("w", '{"x": 1}'), ("w", '{"x": 2}')], TWICE),
    "names that begin alike, no index, no ids": (
        [("read", '{"x": 1}'), ("read_file", ""), (None, '{"y": 2}')],
        [("read", {"x": 1}), ("read_file", {"y": 2})],
    ),
    "a name that grows": (
        [("rea", "", 0, "a"), ("read_fi", "", 0), ("read_file", "{}", 0)],
        [("read_file", {})],
    ),
    "arguments that grow": (
        [("w", '{"x": ', 0, "a"), ("w", '{"x": 1}', 0, "a")],
        [("w", {"x": 1})],
    ),
    "an argument named like the one around it": (
        [("w", '{"x": ', 0, "a"), (None, '{"x": 1}', 0), (None, "}", 0)],
        [("w", {"x": {"x": 1}})],
    ),
    "an id of its own in every piece": (
        [("w", '{"x": ', 0, "a1"), (None, "1}", 0, "a2")],
        [("w", {"x": 1})],
    ),
    "an index in words": (
        [("w", "", "0"), ("c", "", "1"), (None, '{"x": 1}', "0")],
        [("w", {"x": 1}), ("c", {})],
    ),
    "an index that is a float": (
        [("w", "", 0.0), ("c", "", 1.0), (None, '{"x": 1}', 0.0)],
        [("w", {"x": 1}), ("c", {})],
    ),
    "the id comes late": ([("w", '{"x": ', 0), (None, "1}", 0, "a")], [("w", {"x": 1})]),
    "arguments before the name": ([(None, '{"x": ', 0, "a"), ("w", "1}", 0)], [("w", {"x": 1})]),
}


@pytest.mark.parametrize("kind", ODD_PIECES)
def test_pieces_of_calls_in_odd_orders(kind: str) -> None:
    pieces, calls = ODD_PIECES[kind]
    answer = read_stream([piece(*one) for one in pieces])
    assert answer is not None
    assert [(call.name, call.arguments) for call in answer.tool_calls] == calls


PARTS = {"upstream_inference_prompt_cost": 0.125, "upstream_inference_completions_cost": 0.25}


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        ({"cost": "0.5"}, 0.5),
        ({"cost": {"total_cost": "0.25"}}, 0.25),
        ({"cost": "half"}, None),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost": 0.002, "is_byok": True}, None),
        ({"cost": 0.002, "is_byok": True, "cost_details": {"upstream_inference_cost": 0}}, None),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.5}}, 0.51),
        (
            {
                "cost": 0,
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": None, **PARTS},
            },
            0.375,
        ),
        (
            {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_input_cost": 0.125}},
            0.125,
        ),
    ],
)
def test_what_a_provider_reports_as_charged(usage: dict[str, Any], charged: float | None) -> None:
    """What was paid upstream belongs to it; the fee of a gateway alone is no bill."""
    assert charge_of(usage, "x/y") == charged


class Nothing(dict[str, Any]):
    """A dictionary whose own methods must not run."""

    def __contains__(self, key: object) -> bool:
        raise SystemExit

    def __iter__(self) -> Iterator[str]:
        raise SystemExit

    def get(self, *_: Any) -> Any:
        raise SystemExit

    def items(self) -> Any:
        raise SystemExit


class Own(type):
    """A metaclass that must not be asked."""

    def __getattribute__(cls, name: str) -> Any:
        if name == "usage":
            raise SystemExit
        return super().__getattribute__(name)


# A class, given in place of an answer.
UNKNOWN = Own("Unknown", (), {})


class OwnText(str):
    """A text whose own methods must not run."""

    def __str__(self) -> str:
        raise SystemExit

    def __len__(self) -> int:
        raise SystemExit


class Kept:
    """Its attributes lie in a dictionary of another kind."""

    def __init__(self) -> None:
        self.__dict__ = Nothing(usage=5)


STRANGE: tuple[Any, ...] = (
    None,
    "",
    0,
    -1,
    10**30,
    1e400,
    True,
    "\u00b2",
    "[" * 50_000,
    [],
    {},
    [None],
    [[]],
    b"\xff",
    object(),
    {1: 2},
    Nothing(a=1),
    UNKNOWN,
    type,
    OwnText("x"),
    Kept(),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside."""
    if path:
        yield path
    items: Any = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    out = whole = copy.deepcopy(value)
    for key in path[:-1]:
        whole = whole[key]
    whole[path[-1]] = to
    return out


@pytest.mark.parametrize(
    ("cases", "read"), [(PLAIN, read_response), (STREAMS, read_stream)], ids=["plain", "streamed"]
)
def test_any_value_at_any_place(cases: dict[str, Any], read: Any) -> None:
    """What is read has the types that it must have, whatever stands where, and nothing of the value
    runs.
    """
    paths = [(case.given, path) for case in cases.values() for path in places(case.given)]
    for number, (given, path) in enumerate(paths):
        answer = read(changed(given, path, STRANGE[number % len(STRANGE)]))
        if answer is not None:
            assert type(answer.text) is type(answer.model) is str
            assert all(type(call.name) is str for call in answer.tool_calls)


@pytest.mark.parametrize(
    "answer",
    [UNKNOWN, type, Nothing(usage=Nothing(a=1)), Kept()],
    ids=["class", "type", "dict", "object"],
)
def test_what_is_no_answer_becomes_the_output(answer: Any) -> None:
    with traced() as seen:
        with seen.tracer.run("r") as run, run.llm("ask", model="gpt-4o") as step:
            step.record_response(answer)
        assert seen.ended["ask"].output


def test_a_lazy_proxy_does_not_load() -> None:
    """Of a proxy written in C too, whose attributes are those of what it stands for."""
    wrapt = pytest.importorskip("wrapt")

    def load() -> Any:
        raise SystemExit

    with traced() as seen:
        with seen.tracer.run("r") as run, run.tool("t", input=wrapt.LazyObjectProxy(load)) as step:
            step.set_output([wrapt.LazyObjectProxy(load)])
            step.record_response(wrapt.LazyObjectProxy(load))
        assert "Proxy" in seen.ended["t"].input


def test_what_cannot_be_read_costs_no_more_than_itself() -> None:
    deep = '{"a":' * 50_000
    message = {
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "w", "arguments": deep}}
        ]
    }
    answer = read_response(
        chat(message=message, usage={"prompt_tokens": 5, "completion_tokens": 1})
    )
    assert answer is not None
    assert answer.usage is not None
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("w", deep)]
    assert answer.usage.input_tokens == 5
    headers = {
        "x-amzn-bedrock-input-token-count": "\u00b2",
        "x-amzn-bedrock-output-token-count": "7",
    }
    body = read_response({"body": "x", "ResponseMetadata": {"HTTPHeaders": headers}})
    assert body is not None
    assert body.usage is not None
    assert body.usage.output_tokens == 7
