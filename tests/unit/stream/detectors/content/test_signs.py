"""Patterns that are tried only where a text has their words find what the whole pattern finds."""

from __future__ import annotations

import importlib
import pkgutil
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstream.stream.detectors import content
from stepstream.stream.detectors.content.failure_sentences import _first_sentence
from stepstream.stream.detectors.content.failure_words import begins_as_error
from stepstream.stream.detectors.content.given import is_in_sentences
from stepstream.stream.detectors.content.signs import (
    SignedPattern,
    alternatives_of,
    needed_stems,
    stems_of,
)


def _patterns() -> dict[str, SignedPattern]:
    return {
        name: value
        for module in pkgutil.iter_modules(content.__path__, f"{content.__name__}.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, SignedPattern)
    }


PATTERNS = _patterns()
_WORDS = sorted(
    {word for one in PATTERNS.values() for word in re.findall(r"[\w'’]{1,12}", one.pattern.pattern)}
)
_PROSE = [
    "\u017forry",
    *re.findall(r"\S+", "the order is 1500 n't not no 3 failed, CANNOT ' : . - _"),
]


def _agrees(one: SignedPattern, text: str) -> None:
    assert one.found_in(text) == (one.pattern.search(text) is not None), (text, one.pattern)


# Texts of thirty scripts take too long to draw; the next test has its words.
@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - {"_PHRASES"}))
def test_what_a_pattern_matches_is_found(name: str) -> None:
    one = PATTERNS[name]

    @settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.from_regex(one.pattern))
    def check(text: str) -> None:
        _agrees(one, text)

    check()


def test_texts_of_the_words_of_all_patterns_are_decided_as_by_the_whole_pattern() -> None:
    rng = random.Random(4)
    for _ in range(400):
        words = rng.choices(_WORDS, k=rng.randint(1, 9)) + rng.choices(_PROSE, k=rng.randint(0, 9))
        rng.shuffle(words)
        text = rng.choice((" ", " ", "_", "-", "")).join(words)
        for one in PATTERNS.values():
            _agrees(one, text)


def test_most_prose_is_left_out_without_a_search() -> None:
    text = "Parcel 17 leaves Lyon on Monday. It arrives in Turin one day more, by train."
    tried = [name for name, one in PATTERNS.items() if one.may_be_in(text)]
    assert tried == ["_PHRASES"]  # some of its alternatives have no word in ASCII letters


@pytest.mark.parametrize(
    "text", ["could not ſave", "denİed", "ſorry", "\u212anown", "not avaılable"]
)
def test_letters_that_ignoring_case_takes_for_others_are_not_left_out(text: str) -> None:
    for one in PATTERNS.values():
        _agrees(one, text)


def test_a_pattern_is_split_at_its_outermost_level() -> None:
    pattern = re.compile(r"a\|b|[|\]]c|(?:d|e)|[]|]", re.I)
    assert alternatives_of(pattern) == [r"a\|b", r"[|\]]c", "(?:d|e)", "[]|]"]
    verbose = re.compile("a # this | that\n | b", re.VERBOSE)
    assert [one.strip() for one in alternatives_of(verbose)] == ["a # this | that", "b"]


@pytest.mark.parametrize(
    ("pattern", "needed"),
    [
        (r"\bnot (?:found|there)\b", {"foun", "ther"}),
        (r"\b(?:no|not)\b", {"no", "not"}),
        (r"\bno\w*", None),
        (r"failed", None),  # it may stand within a word
        (r"\bfail\w*", {"fail"}),
        (r"(?<=[.;] )failed: ", {"fail"}),
        (r"^[\W_]{0,8}(?:\w+ )?error\b", {"erro"}),
        (r"n['’]t\b", {"t"}),
        (r"\bfällt nichts\b", {"nich"}),
        (r"\b(?:maximum|max)\b", {"maxi", "max"}),
        (r"(?:\bis\b)?", None),
        (r"\d+", None),
    ],
)
def test_the_words_that_a_pattern_needs(pattern: str, needed: set[str] | None) -> None:
    from re import _parser as parser

    assert needed_stems(parser.parse(pattern, re.I)) == needed


def test_a_word_is_known_by_its_first_letters() -> None:
    assert stems_of("Couldn't FIND id_42, naïve-ly") == {
        b"coul", b"t", b"find", b"id", b"42", b"na", b"ve", b"ly",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("Error: no such order", True),
        ("Tool call failed: the table is locked", True),
        ("ValueError(bad)", True),
        ("java.io.IOException: x", True),
        ("HTTP/1.1 404 Not Found", True),
        ("503 Service Unavailable", True),
        ("status 503", True),
        ("3 validation errors for Order", True),
        ("error while reading", True),
        ("404 Uncommon Street", True),
        ("errors are rare here", False),
        ("The order 4500 is there", False),
        ("", False),
    ],
)
def test_how_messages_of_errors_begin(text: str, begins: bool) -> None:
    assert begins_as_error(text) is begins


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It failed. Try again.", "It failed."),
        ("No end", "No end"),
        ("v1. 2 of 3. Next", "v1. 2 of 3."),
        ("Sorry!\n\nPlease wait", "Sorry!"),
        ("a ... B. C", "a ... B."),
    ],
)
def test_the_first_sentence_of_a_message(text: str, first: str) -> None:
    assert _first_sentence(text) == first
    assert re.split(r"(?<=\w[.!?;])\s+(?=[A-Z])", text, maxsplit=1)[0] == first


def test_a_command_is_no_sentence() -> None:
    assert is_in_sentences("what is the state of the order that I made")
    assert not is_in_sentences("what is the state of it && ls of the house")
    assert not is_in_sentences("git log --oneline of the last of the week")
