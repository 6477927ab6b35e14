"""The input and output of an ended step for detectors: cut to both ends, decoded at most once."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stepstream.schemas.step import Step

HEAD: Final = 4_096
"""Characters at each end of an input or output that detectors read; they skip what is between."""

WHOLE: Final = 2 * HEAD
"""A text of up to this many characters is read completely."""
_END: Final = 600

_decode = msgspec.json.Decoder().decode
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_WRAPPERS: Final = ("kwargs", "arguments", "parameters")
# Marks what is not worked out yet, since None is a result.
_UNREAD: Final = object()

_JOINING: Final = b"_-"


def _word_byte(code: int) -> int:
    """A byte as part of a word: letters in lower case, digits, the characters in ``_JOINING`` and
    bytes beyond ASCII; any other byte becomes a space.
    """
    char = bytes([code]).lower()
    return char[0] if char.isalnum() or char in _JOINING or code >= 128 else 32


_WORDS: Final = bytes(map(_word_byte, range(256)))


class Contents:
    """The contents of one ended step, shared by all detectors; each property is worked out at its
    first use.
    """

    __slots__ = (
        "_arguments",
        "_given",
        "_input_data",
        "_output_data",
        "_output_words",
        "_taken",
        "_top",
        "input",
        "noted",
        "output",
        "step",
    )

    def __init__(self, step: Step) -> None:
        self.step = step
        self.input = step.input if len(step.input) <= WHOLE else both_ends(step.input)
        self.output = step.output if len(step.output) <= WHOLE else both_ends(step.output)
        # Each is worked out at its first use: most steps concern few detectors.
        self._given: Any = _UNREAD
        self._taken: Any = _UNREAD
        self._arguments: Any = _UNREAD
        self._top: Any = _UNREAD
        self.noted: dict[str, Any] = {}
        """Results that one detector has worked out and another uses."""
        self._input_data: bytes | None = None
        self._output_data: bytes | None = None
        self._output_words: list[bytes] | None = None

    @property
    def input_is_cut(self) -> bool:
        """Whether a part of the input is missing here."""
        return len(self.step.input) > WHOLE or bool(self.step.input_bytes)

    @property
    def output_is_cut(self) -> bool:
        """Whether a part of the output is missing here."""
        return len(self.step.output) > WHOLE or bool(self.step.output_bytes)

    @property
    def given(self) -> Any:
        """The input as JSON; None where it is not JSON, or is cut."""
        if self._given is _UNREAD:
            self._given = None if self.input_is_cut else json_of(self.input)
        return self._given

    @property
    def taken(self) -> Any:
        """The output as JSON; None where it is not JSON, or is cut."""
        if self._taken is _UNREAD:
            self._taken = None if self.output_is_cut else json_of(self.output)
        return self._taken

    @property
    def arguments(self) -> dict[str, Any] | None:
        """A call's named arguments without the wrappers of frameworks; None if none."""
        if self._arguments is _UNREAD:
            given = self.given
            self._arguments = _unwrapped(given) if isinstance(given, dict) else None
        found: dict[str, Any] | None = self._arguments
        return found

    @property
    def input_data(self) -> bytes:
        """The input in UTF-8."""
        if self._input_data is None:
            self._input_data = self.input.encode("utf-8", "replace")
        return self._input_data

    @property
    def output_data(self) -> bytes:
        """The output in UTF-8."""
        if self._output_data is None:
            self._output_data = self.output.encode("utf-8", "replace")
        return self._output_data

    @property
    def output_words(self) -> list[bytes]:
        """The words of the output in order, in lower case."""
        if self._output_words is None:
            self._output_words = _split(self.output_data)
        return self._output_words

    @property
    def top_of_output(self) -> dict[str, msgspec.Raw] | None:
        """The output's own keys with their values undecoded, if it is an object; a quarter of the
        cost of decoding all of it.
        """
        if self._top is _UNREAD:
            self._top = None if self.output_is_cut else _top_of(self.output)
        found: dict[str, msgspec.Raw] | None = self._top
        return found


def _unwrapped(given: dict[str, Any]) -> dict[str, Any]:
    if len(given) != 1 and "args" not in given and "name" not in given:
        return given
    for name in _WRAPPERS:
        inner = given.get(name)
        if isinstance(inner, dict):
            return inner if inner or not given.get("args") else {"args": given["args"]}
    return given


def both_ends(text: str) -> str:
    """Beginning and end of a long text, each on lines of its own."""
    return f"{text[:HEAD]}\n{text[-HEAD:]}"


def ends_of(text: str) -> str:
    """Beginning and end of a long text, where the keys of an object that matter usually are; a
    short text unchanged.
    """
    return text if len(text) <= 2 * _END else text[:_END] + text[-_END:]


def json_of(text: str) -> Any:
    """A text decoded as JSON if it begins like an object, a list or a string; None otherwise."""
    if text[:1] not in ("{", "[", '"'):
        text = text.strip()
        if text[:1] not in ("{", "[", '"'):
            return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _top_of(text: str) -> dict[str, msgspec.Raw] | None:
    try:
        return _decode_top(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def words(text: str) -> frozenset[bytes]:
    """The different words of a text, in lower case; identifiers stay whole."""
    return frozenset(words_in_order(text))


def words_in_order(text: str) -> list[bytes]:
    """The words of a text in order, in lower case, with repetitions."""
    return _split(text.encode("utf-8", "replace"))


def _split(data: bytes) -> list[bytes]:
    return data.translate(_WORDS).split()
