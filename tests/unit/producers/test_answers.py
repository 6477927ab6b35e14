"""Answers in the shapes of the clients' newest packages:

text, calls, usage, tier, and cost next to a calculation by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from stepstream.producers.responses.answer import Answer
from stepstream.producers.responses.reader import read_response
from stepstream.producers.responses.streamed import read_stream
from stepstream.schemas.usage import MAX_USAGE_COUNT
from tests.support.client_answers import PLAIN, Case, counts, dollars
from tests.support.client_streams import STREAMS


def objects(value: Any) -> Any:
    """The same answer as a library's objects have it: attributes in place of keys."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: objects(item) for key, item in value.items()})
    return [objects(item) for item in value] if isinstance(value, list) else value


def check(answer: Answer | None, case: Case) -> None:
    assert answer is not None
    assert counts(answer) == case.counts
    assert dollars(answer, case) == case.usd
    assert (answer.text, answer.service_tier) == (case.text, case.tier)
    assert tuple((call.name, call.arguments) for call in answer.tool_calls) == case.calls


@pytest.mark.parametrize("name", PLAIN)
def test_plain_answers(name: str) -> None:
    """Every shape of every client, as a dictionary."""
    check(read_response(PLAIN[name].given), PLAIN[name])


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in PLAIN
        if not name.startswith(("Bedrock", "others: LangChain", "like OpenAI: LiteLLM"))
    ],
)
def test_plain_answers_as_objects(name: str) -> None:
    """The same as the client's own objects have it."""
    case = PLAIN[name]
    # What a call holds becomes an object too.
    if not any("type" in str(call[1]) for call in case.calls):
        answer = read_response(objects(case.given))
        assert answer is not None
        assert (counts(answer), dollars(answer, case), answer.text) == (
            case.counts,
            case.usd,
            case.text,
        )


@pytest.mark.parametrize("name", STREAMS)
def test_streamed_answers(name: str) -> None:
    """Every stream of every client, as dictionaries."""
    check(read_stream(STREAMS[name].given), STREAMS[name])


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if not name.startswith(("Bedrock", "plain text"))]
)
def test_streamed_answers_as_objects(name: str) -> None:
    """The same as the client's own objects have it."""
    case = STREAMS[name]
    answer = read_stream([objects(piece) for piece in case.given])
    assert answer is not None
    assert (counts(answer), dollars(answer, case), answer.text) == (
        case.counts,
        case.usd,
        case.text,
    )
    assert [call.name for call in answer.tool_calls] == [call[0] for call in case.calls]


@pytest.mark.parametrize("name", STREAMS)
def test_no_piece_is_needed_for_the_rest_to_be_read(name: str) -> None:
    """Streams break off and drop pieces: whatever is left is read without an error."""
    pieces = STREAMS[name].given
    # Each piece once as None, and each beginning of the stream.
    for left_out in range(len(pieces)):
        read_stream([*pieces[:left_out], None, *pieces[left_out + 1 :]])
        read_stream(pieces[:left_out])


HOSTILE: tuple[Any, ...] = (
    -1,
    True,
    float("nan"),
    float("inf"),
    10**400,
    2**53,
    1.5,
    "12",
    "",
    None,
    [],
    {},
    [None],
    {"total_cost": -1},
    b"\xff",
    object(),
)


def mutants(value: Any) -> Iterator[Any]:
    """The same answer with one of its values replaced by something else, for each value in it."""
    if isinstance(value, dict):
        for key, item in value.items():
            for other in HOSTILE:
                yield value | {key: other}
            for mutant in mutants(item):
                yield value | {key: mutant}
            yield {name: item for name, item in value.items() if name != key}
    elif isinstance(value, list):
        for place, item in enumerate(value):
            for mutant in (*HOSTILE, *mutants(item)):
                yield [*value[:place], mutant, *value[place + 1 :]]


@pytest.mark.parametrize("name", PLAIN)
def test_no_value_in_an_answer_makes_it_unreadable(name: str) -> None:
    """Whatever stands where: no error, no count beyond bounds, no amount below zero."""
    for mutant in mutants(PLAIN[name].given):
        answer = read_response(mutant)
        assert answer is None or bounded(answer)


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if name != "plain text" and "bodies" not in name]
)
def test_no_value_in_a_stream_makes_it_unreadable(name: str) -> None:
    """The same, piece by piece."""
    for mutant in mutants(STREAMS[name].given):
        answer = read_stream(mutant)
        assert answer is None or bounded(answer)


def bounded(answer: Answer) -> bool:
    assert isinstance(answer.text, str)
    assert isinstance(answer.model, str)
    assert all(isinstance(call.name, str) for call in answer.tool_calls)
    assert answer.charged_usd is None or 0 <= answer.charged_usd < float("inf")
    return all(0 <= count <= MAX_USAGE_COUNT for count in counts(answer).values())
