"""How alike two calls are.

A small sketch of the words of each, and the form of an error without what varies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from zlib import crc32

BITS: Final = 256
MAX_WORDS: Final = 64
_BIT: Final = tuple(1 << number for number in range(BITS))
_SEVERAL: Final = 2
_SHORT: Final = 40
_WORDS_OF_SPEECH: Final = 3
_DIGITS: Final = b"0123456789"
_MAX_COMMAND: Final = 600
_QUOTED: Final = re.compile(r"'([^'\n]{1,200})'|\"([^\"\n]{1,200})\"")
_PIPELINE: Final = re.compile(r"&&|\|\||[|;\n]")
_NO_DIGITS: Final = bytes(code for code in range(256) if code not in _DIGITS)
_COUNTS: Final = re.compile(r"(\d{1,9}) (?:\w{1,20} )?(failed|failures?|errors?|passed)\b")
_VARYING: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\d+")


def sketch(found: Iterable[bytes]) -> int:
    """A set of bits for a set of words.

    Of many words those with the smallest hashes stand for all.
    """
    marks = set(map(crc32, found))
    # The smallest hashes are a sample that equal sets have in common, as in bottom-k MinHash.
    kept = sorted(marks)[:MAX_WORDS] if len(marks) > MAX_WORDS else marks
    bits = 0
    for value in kept:
        bits |= _BIT[value % BITS]
    return bits


def set_bits(found: Iterable[bytes], size: int) -> int:
    """The same with any number of bits, a multiple of eight, and for all words."""
    pending = bytearray(size // 8)
    for value in map(crc32, found):
        pending[value % size >> 3] |= 1 << (value & 7)
    return int.from_bytes(pending, "little")


def similarity(one: int, other: int) -> float:
    """The share of words in common (Jaccard), estimated from the sketches; 0 if there are none."""
    both = (one & other).bit_count()
    return both / (one | other).bit_count() if both else 0.0


def values_text(value: Any) -> str:
    """All texts and numbers in a JSON value, without the names they stand under."""
    parts: list[str] = []
    _collect(value, parts)
    return " ".join(parts)


def _collect(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, parts)
    elif isinstance(value, list):
        for item in value:
            _collect(item, parts)
    elif value is not None:
        parts.append(str(value))


def error_form(message: str) -> int:
    """An error without its quotations, paths and numbers, as a number; 0 for none.

    How many failed is kept.
    """
    if not message:
        return 0
    text = message[:300]
    return crc32(f"{_VARYING.sub('', text)}{_COUNTS.findall(text)}".encode("utf-8", "replace"))


def names_of_things(found: Iterable[bytes]) -> int:
    """The words with a digit in them, as a number: ids, dates, amounts.

    Calls in which they differ are about other things.
    """
    named = [word for word in found if not word.isalpha()]
    return (
        crc32(b" ".join(sorted({word for word in named if word.translate(None, _DIGITS) != word})))
        if named
        else 0
    )


def operands_of(command: str) -> int:
    """What a command is about, as a number; 0 where it names nothing.

    The texts in quotation marks if there are any, else the words that are no options, without the
    names of the programs. Commands in which they differ are about other things.
    """
    quoted = _QUOTED.findall(command)
    if quoted:
        about = {one or other for one, other in quoted}
    else:
        about = set()
        for part in _PIPELINE.split(command[:_MAX_COMMAND]):
            words = part.split()
            if words[:1] != ["cd"]:
                about.update(word.strip("./") for word in words[1:] if word[:1] not in "-<>&")
    about.discard("")
    return crc32("\n".join(sorted(about)).encode("utf-8", "replace")) if about else 0


def short_values(arguments: dict[str, Any] | None) -> int:
    """The short ones among several named values, as a number.

    Whose turn it is where the same is done for one after another.
    """
    if arguments is None or len(arguments) < _SEVERAL:
        return 0
    short = [
        value
        for value in arguments.values()
        if isinstance(value, str) and len(value) <= _SHORT and value.count(" ") < _SEVERAL
    ]
    return crc32("\n".join(short).encode("utf-8", "replace")) if short else 0


def digits_of(text: str) -> int:
    """All digits of a text in their order, as a number.

    It differs for texts about different parts of one thing.
    """
    return crc32(text.encode("utf-8", "replace").translate(None, _NO_DIGITS))


def is_in_words(found: Iterable[bytes]) -> bool:
    """Whether these are at least three different words, not values of a form."""
    different: set[bytes] = set()
    for word in found:
        if word.isalpha():
            different.add(word)
            if len(different) >= _WORDS_OF_SPEECH:
                return True
    return False
