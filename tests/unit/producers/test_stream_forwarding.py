"""What ``record_stream`` returns does whatever the stream does, by operators and built-in functions
too.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.sdk import traced


class Whole:
    """A stream with special methods of its own."""

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 7

    def __bool__(self) -> bool:
        return False

    def __contains__(self, item: object) -> bool:
        return item == "q"

    def __eq__(self, other: object) -> bool:
        return other == 5

    def __hash__(self) -> int:
        return 99

    def __getitem__(self, key: Any) -> Any:
        return key

    def __call__(self, value: int) -> int:
        return 2 * value

    def __add__(self, other: int) -> int:
        return 4 + other

    def __radd__(self, other: int) -> int:
        return 5 + other

    def __lt__(self, other: object) -> bool:
        return True

    def __format__(self, spec: str) -> str:
        return f"formatted {spec}"

    def __int__(self) -> int:
        return 3


class Plain:
    """A stream with none."""

    def __iter__(self) -> Iterator[str]:
        return iter("ab")


USES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "len": len,
    "bool": bool,
    "in": lambda s: ("q" in s, "a" in s),
    "equal": lambda s: (s == 5, s != 5),
    "hash": lambda s: hash(s) == 99,
    "item": lambda s: s[0],
    "slice": lambda s: s[0:1],
    "call": lambda s: s(3),
    "callable": callable,
    "add": lambda s: s + 1,
    "radd": lambda s: 1 + s,
    "less": lambda s: s < 1,
    "format": lambda s: f"{s:x}",
    "int": int,
    "reversed": lambda s: list(reversed(s)),
    "has len": lambda s: hasattr(s, "__len__"),
    "copy": lambda s: list(copy.copy(s)),
    "deepcopy": lambda s: list(copy.deepcopy(s)),
    "pickle": lambda s: list(pickle.loads(pickle.dumps(s))),
    "sorted": sorted,
    "iter twice": lambda s: (list(s), list(s)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "make",
    [
        Whole,
        Plain,
        lambda: ["a", "b"],
        lambda: (),
        lambda: {"a": 1},
        lambda: range(3),
        lambda: "ab",
    ],
)
def test_it_does_what_the_stream_does(make: Callable[[], Any], use: str) -> None:
    """The same result, or the same kind of error."""
    with traced() as seen, seen.tracer.run("r") as run, run.llm("ask", model="gpt-4o") as step:
        try:
            expected = USES[use](make())
        except (TypeError, ValueError, IndexError, KeyError):
            with pytest.raises((TypeError, ValueError, IndexError, KeyError)):
                USES[use](step.record_stream(make()))
            return
        assert USES[use](step.record_stream(make())) == expected
