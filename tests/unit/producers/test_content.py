"""Anything an agent hands over becomes text, quickly, within bounds, and without an exception."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from stepstream.producers.values.content import SLACK_CHARS, fits, room_left, to_text
from stepstream.producers.values.plain import ValueReader

LIMIT = 16_384
HERE = __name__
Pair = namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    number: int
    paid: datetime.date


class Model(BaseModel):
    name: str
    key: SecretStr = SecretStr("hidden")
    inner: Order | None = None


class Odd:
    def __repr__(self) -> str:
        return "Odd()"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def model_dump(self) -> Any:
        raise RuntimeError("no")


class Dumps:
    def to_dict(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("text", "text"),
        ("", ""),
        (5, "5"),
        (True, "true"),
        (1.5, "1.5"),
        (Decimal("1.10"), '"1.10"'),
        ([1, "a", None], '[1,"a",null]'),
        ((1, 2), "[1,2]"),
        ({"a": {"b": [1]}}, '{"a":{"b":[1]}}'),
        ({1: 2}, '{"1":2}'),
        (Colour.RED, '"red"'),
        (Order(7, datetime.date(2026, 1, 1)), '{"number":7,"paid":"2026-01-01"}'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (Path("/a/b"), None),
        (b"text", "text"),
        (b"\xff\xfe", "<2 bytes>"),
        ({"raw": b"\xff"}, None),
        (Odd(), f'"<{HERE}.Odd>"'),
        ({"x": Odd()}, f'{{"x":"<{HERE}.Odd>"}}'),
        (ValueError("no"), '"ValueError: no"'),
        (Dumps(), f'"<{HERE}.Dumps>"'),
        (OrderedDict(a=1), '{"a":1}'),
        ({("a", "b"): 1}, '{"[\\"a\\",\\"b\\"]":1}'),
        (10**30, '"1' + "0" * 30 + '"'),
        (Pair(1, 2), "[1,2]"),
        (float("nan"), "null"),
        ({"x": float("inf")}, '{"x":null}'),
        ([Broken()], f'["<{HERE}.Broken>"]'),
        (Model(name="a", inner=Order(1, datetime.date(2026, 1, 1))), None),
        ("\ud800", "\ud800"),
        (["\ud800"], '["?"]'),
        ({"a": lambda: 1}, None),
        (type("Weird", (dict,), {})(a=1), '{"a":1}'),
        (Odd, None),
    ],
)
def test_values(value: object, text: str | None) -> None:
    """Text stays text; what has a shape is JSON; any other object is its type."""
    got, size = to_text(value, LIMIT)
    assert size is None
    if text is None:
        json.loads(got)
    else:
        assert got == text


def test_models_keep_their_secrets() -> None:
    """A pydantic model is its fields, secret ones masked."""
    text, _ = to_text(Model(name="a"), LIMIT)
    assert json.loads(text)["name"] == "a"
    assert "hidden" not in text


def test_circles_and_depths_end() -> None:
    """Structures that contain themselves, or nest without end, become finite JSON."""
    circle: dict[str, Any] = {"a": 1}
    circle["self"] = circle
    assert json.loads(to_text(circle, LIMIT)[0]) == {"a": 1, "self": "<circular>"}
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    text, _ = to_text(deep, LIMIT)
    assert json.loads(text)
    shared = {"b": 1}
    assert json.loads(to_text([shared, shared, {1, 2}], LIMIT)[0]) == [shared, shared, [1, 2]]


@pytest.mark.parametrize(
    "value",
    [
        [[0.5] * 1536] * 2_000,
        {str(i): i for i in range(300_000)},
        [{"v": [1] * 1000} for _ in range(3_000)],
        "x" * 30_000_000,
        b"x" * 5_000_000,
    ],
    ids=["vectors", "dict", "rows", "text", "bytes"],
)
def test_huge_values_cost_little(value: object) -> None:
    """Of a value of millions of parts no more is read than can be kept, and the text is kept within
    bounds.
    """
    text, _ = to_text(value, LIMIT)
    assert len(text) <= LIMIT + SLACK_CHARS
    reader = ValueReader()
    reader.plain(value, LIMIT)
    assert reader.visited <= 2 * LIMIT
    assert reader.characters <= 2 * LIMIT


def test_the_size_before_the_cut() -> None:
    """A cut text comes with the bytes it had; the cut leaves room for a secret that lies across the
    limit.
    """
    text, size = to_text("é" * 20_000, 100)
    # Bytes, not characters: é has two.
    assert size == 40_000
    assert len(text) <= 100
    assert to_text("x" * 4_000, 100) == ("x" * 4_000, None)


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
)
_anything = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters()) | st.integers() | st.tuples(st.integers()), inner
        )
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=10,
)


@given(_anything, st.integers(0, 3_000))
def test_the_short_check_takes_nothing_that_the_exact_one_refuses(value: object, room: int) -> None:
    """And what it takes is plain JSON."""
    if isinstance(value, dict | list | tuple) and room_left(value, room) >= 0:
        assert fits(value, room)
        assert json.loads(to_text(value, LIMIT)[0]) == json.loads(json.dumps(value))


@given(_anything)
def test_anything_becomes_text(value: object) -> None:
    """Whatever it is, it is text in the end, and JSON unless it was text or bytes."""
    text, _ = to_text(value, LIMIT)
    assert isinstance(text, str)
    if value is not None and not isinstance(value, str | bytes):
        json.loads(text)
