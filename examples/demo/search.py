"""A small full-text search: BM25 over a few documents in memory."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

K1: Final = 1.2
B: Final = 0.75
_WORD: Final = re.compile(r"[a-z0-9]+")
_STOP_WORDS: Final = """
a an and are as at be by can do does for from has have how i in is it its may my no not of on or
our so than that the their then there this to until was we what when where which who why with
within you your
"""
_STOP: Final = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Hit:
    """A found document with its BM25 score: near 0 is unrelated, above 3 is relevant."""

    id: str
    score: float
    content: str


class Search:
    """BM25 (Robertson and Zaragoza, 2009) with k1 = 1.2 and b = 0.75."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._documents = dict(documents)
        self._words = {name: Counter(_words(text)) for name, text in documents.items()}
        self._lengths = {name: sum(words.values()) for name, words in self._words.items()}
        self._mean = sum(self._lengths.values()) / max(1, len(self._lengths))
        self._frequency = Counter(word for words in self._words.values() for word in words)

    def find(self, question: str, count: int = 3) -> list[Hit]:
        """The best documents for a question, best first: ``count``, however low the scores."""
        wanted = set(_words(question))
        scored = ((self._score(name, wanted), name) for name in self._documents)
        best = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:count]
        return [Hit(name, round(score, 3), self._documents[name]) for score, name in best]

    def _score(self, name: str, wanted: set[str]) -> float:
        # Longer documents contain more words by chance: the norm corrects for it.
        words, norm = self._words[name], K1 * (1 - B + B * self._lengths[name] / self._mean)
        return sum(
            self._rarity(word) * words[word] * (K1 + 1) / (words[word] + norm)
            for word in wanted
            if words[word]
        )

    def _rarity(self, word: str) -> float:
        found = self._frequency[word]
        return math.log(1 + (len(self._documents) - found + 0.5) / (found + 0.5))


def _words(text: str) -> list[str]:
    """Words without their commonest endings, stop words left out."""
    words = (word for word in _WORD.findall(text.lower()) if word not in _STOP)
    return [
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in words
    ]
