"""Retrieval that brings nothing, or nothing about its query.

And answers that share nothing with what was retrieved.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal
from zlib import crc32

from pydantic import Field

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import (
    CALLS,
    ContentDetector,
    DeferringDetector,
    excerpt,
)
from stepstream.stream.detectors.content.failure_words import NO_RESULTS, NOTHING_FOUND
from stepstream.stream.detectors.content.sameness import set_bits, similarity, sketch, values_text
from stepstream.stream.detectors.content.speech import answer_words
from stepstream.stream.run.contents import Contents, words, words_in_order
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

Share = Annotated[float, Field(gt=0, le=1)]


class IrrelevantRetrieval(RuleBase):
    """A retrieval came back empty, or with documents that share next to nothing with its query."""

    reads_contents = True
    fires_when = (
        "a retrieval returns nothing, nothing about its query, or is repeated in other words"
    )
    usual_severity = "warning"

    rule: Literal["irrelevant_retrieval"]
    min_overlap: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="weighted share of the query's words that what came back must hold; 0: only "
        "empty ones are reported",
    )
    min_score: float | None = Field(
        None, description="report when no document's score reaches this"
    )
    empty: bool = Field(True, description="report retrievals that bring nothing")
    asked_again: bool = Field(
        True, description="report retrievals whose query is asked again in other words"
    )


class UnsupportedAnswer(RuleBase):
    """The run's answer shares nothing with what was retrieved for it."""

    reads_contents = True
    fires_when = "the run's answer shares almost no words with what was retrieved"
    usual_severity = "warning"

    rule: Literal["unsupported_answer"]
    min_overlap: Share = Field(
        0.1, description="share of the answer's words that were retrieved, beyond chance"
    )


# Kept as hexadecimal text: 24 retrievals take up to 12 KB of a run's state record.
_BITS: Final = 2_048
_ANSWER_BITS: Final = 8_192
_MAX_KEPT: Final = 24
_MAX_QUERY: Final = 24
_MIN_QUERY: Final = 2
_ECHO: Final = 400
_MIN_RETRIEVED: Final = 20
_MIN_ANSWER: Final = 5
_QUERY_KEYS: Final = ("query", "q", "search_query", "queries", "keywords", "search")
_RETRIEVAL_KEYS: Final = (
    *_QUERY_KEYS,
    "question",
    "search_term",
    "search_string",
    "text",
    "input",
    "prompt",
)
_ASKED_AGAIN: Final = 0.5
"""Share of words in common (Jaccard) from which a query is another's, asked again."""
_EMPTY: Final = frozenset({"", "[]", "{}", "null", "None", '""', "()", "[[]]"})
# Words that every text has: a document that shares only these is about something else.
_COMMON: Final = frozenset(
    b"""a about all an and any are as at be been but by can could did do does for from get give had
    has have how i if in into is it its list me more most my no not of on one or other our out
    please show site so some such tell than that the their them
    then there these they this to up us was we were what when where which who why will with would
    you your""".split()
)


def query_of(kind: str, contents: Contents) -> str:
    """What was asked for; empty where a step is no retrieval."""
    arguments = contents.arguments
    if arguments is not None:
        # A tool call counts as a retrieval only under an unmistakable name: "text" may be anything.
        for key in _RETRIEVAL_KEYS if kind == "retrieval" else _QUERY_KEYS:
            value = arguments.get(key)
            if isinstance(value, str) and value:
                return value
    if kind != "retrieval":
        return ""
    return contents.input if arguments is None else values_text(arguments)


def content_words(text: str) -> list[bytes]:
    """The different content words of a text, in their order."""
    return [
        word
        for word in dict.fromkeys(words_in_order(text))
        if len(word) > 1 and word not in _COMMON
    ]


def retrieved_text(contents: Contents, query: str) -> str:
    """What came back, without the query where the beginning of a longer text repeats it."""
    documents = contents.step.documents
    if documents and any(document.content for document in documents):
        text = " ".join(document.content for document in documents)[:4_096]
    else:
        taken = contents.taken
        text = contents.output if taken is None else values_text(taken)
    # Search pages repeat the query at the top, which would be found in its own answer.
    if not query or len(text) < 2 * _ECHO:
        return text
    return text[:_ECHO].replace(query, " ") + text[_ECHO:]


def is_empty(step: StepInfo, contents: Contents) -> bool:
    """Whether a retrieval returned nothing, in one of the usual wordings."""
    if contents.step.documents:
        return False
    if step.status == "error":
        return bool(NO_RESULTS.search(step.error_message[:300]))
    # A long output is not empty: copying it to strip it would cost more than the comparison.
    output = contents.output.strip() if len(contents.output) < 200 else contents.output
    if output in _EMPTY:
        return bool(contents.input) and not contents.step.output_bytes
    taken = contents.taken
    if isinstance(taken, dict) and len(taken) <= 6:
        lists = [value for value in taken.values() if isinstance(value, list)]
        return bool(lists) and not any(lists)
    return len(output) <= 400 and taken is None and NOTHING_FOUND.found_in(output)


@detector_for(IrrelevantRetrieval)
class IrrelevantRetrievalDetector(DeferringDetector[IrrelevantRetrieval]):
    """An empty retrieval is reported at once.

    What came back is weighed when earlier retrievals have settled.

    The share of the query's words that came back, each weighted by how rarely the run's retrievals
    bring it (as in BM25's idf): a word that is on every page carries little information.
    """

    kinds = CALLS

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._min_overlap = self.rule.min_overlap
        self._min_score = self.rule.min_score
        self._empty = self.rule.empty
        self._asked_again = self.rule.asked_again

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Report what is evident, and note the rest."""
        if step.kind not in CALLS:
            return NOTHING
        query = query_of(step.kind, contents)
        if not query:
            return NOTHING
        if self._asked_again:
            self._note_query(run, step, query, now_us)
        if is_empty(step, contents):
            return (
                (
                    self._observation(
                        step, query, "brought nothing", level="empty", value=0.0, threshold=None
                    ),
                )
                if self._empty
                else NOTHING
            )
        if step.status == "error":
            return NOTHING
        low = self._low_score(step, contents, query)
        if low is not None:
            return (low,)
        if self._min_overlap > 0:
            self._note(run, step, contents, query, now_us)
        return NOTHING

    def _low_score(self, step: StepInfo, contents: Contents, query: str) -> Observation | None:
        scores = [
            document.score for document in contents.step.documents if document.score is not None
        ]
        if self._min_score is None or not scores or max(scores) >= self._min_score:
            return None
        return self._observation(
            step,
            query,
            f"found nothing better than {max(scores):.2f}",
            level="score",
            value=max(scores),
            threshold=self._min_score,
        )

    def _note(self, run: Run, step: StepInfo, contents: Contents, query: str, now_us: int) -> None:
        asked = content_words(query)[:_MAX_QUERY]
        found = words(retrieved_text(contents, query))
        if len(asked) < _MIN_QUERY or not found:
            return
        kept: dict[str, list[Any]] = self.own(run).setdefault("kept", {})
        if len(kept) >= _MAX_KEPT:
            return
        hits = [int(word in found or _stem_in(word, found)) for word in asked]
        marks = [crc32(word) % _BITS for word in asked]
        kept[step.step_id] = [
            step.end_us,
            marks,
            hits,
            f"{set_bits(found, _BITS):x}",
            excerpt(query, 80),
        ]
        self.defer(run, step.step_id, now_us)

    def _note_query(self, run: Run, step: StepInfo, query: str, now_us: int) -> None:
        queries: dict[str, list[str]] = self.own(run).setdefault("queries", {})
        if len(queries) < _MAX_KEPT:
            queries[step.step_id] = [f"{sketch(content_words(query)):x}", excerpt(query, 80)]
            self.defer(run, f"again:{step.step_id}", now_us)

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """The observations about a deferred step."""
        if key.startswith("again:"):
            return self._evaluate_query(run, key.removeprefix("again:"))
        return self._evaluate_overlap(run, key)

    def _evaluate_query(self, run: Run, key: str) -> list[Observation]:
        """Whether the query repeats an earlier one of the same tool in other words."""
        queries: dict[str, list[str]] = self.own(run).get("queries", {})
        step, mine = run.steps.get(key), queries.get(key)
        if step is None or mine is None:
            return []
        bits = int(mine[0], 16)
        earlier = [
            (before.start_us, other_id)
            for other_id, other in queries.items()
            if (before := run.steps.get(other_id)) is not None
            and before.label == step.label
            and before.end_us <= step.start_us
            and other[1] != mine[1]
            and similarity(bits, int(other[0], 16)) >= _ASKED_AGAIN
        ]
        if not earlier:
            return []
        _, last = max(earlier)
        alike = similarity(bits, int(queries[last][0], 16))
        message = "did not bring what was wanted: it was asked again in other words"
        return [
            self._observation(
                run.steps[last],
                queries[last][1],
                message,
                level="again",
                value=alike,
                threshold=_ASKED_AGAIN,
                again=mine[1],
            )
        ]

    def _evaluate_overlap(self, run: Run, key: str) -> list[Observation]:
        """The weighted share of the query that came back."""
        kept: dict[str, list[Any]] = self.own(run).get("kept", {})
        step, entry = run.steps.get(key), kept.get(key)
        if step is None or entry is None:
            return []
        end_us, marks, hits, _, query = entry
        # Only what had come back by then, so that the result does not depend on later records.
        others = [int(other[3], 16) for other in kept.values() if other[0] <= end_us]
        weights = [
            # BM25's idf with its 0.5, over the run's own retrievals as the collection of documents.
            math.log(1 + (len(others) + 1) / (0.5 + sum(bits >> m & 1 for bits in others)))
            for m in marks
        ]
        share = sum(w * hit for w, hit in zip(weights, hits, strict=True)) / sum(weights)
        if share >= self._min_overlap:
            return []
        message = f"brought back next to nothing about its query ({sum(hits)} of {len(hits)} words)"
        return [
            self._observation(
                step,
                query,
                message,
                level="irrelevant",
                value=share,
                threshold=self._min_overlap,
            )
        ]

    def _observation(
        self,
        step: StepInfo,
        query: str,
        message: str,
        *,
        level: str,
        value: float,
        threshold: float | None,
        again: str = "",
    ) -> Observation:
        return Observation(
            message=f"{step.label} {message}",
            quoted=f"{excerpt(query, 80)}{f' / {again}' if again else ''}",
            severity=self.severity("warning"),
            subject=step.label,
            level=f"{level}:{step.step_id}",
            step_ids=(step.step_id,),
            value=value,
            threshold=threshold,
            unit="" if level == "score" else "count" if level == "empty" else "ratio",
        )


def _stem_in(word: bytes, found: frozenset[bytes]) -> bool:
    """Whether the word is there as singular or plural: only the final s is compared."""
    return (word[:-1] if word.endswith(b"s") else word + b"s") in found


@detector_for(UnsupportedAnswer)
class UnsupportedAnswerDetector(ContentDetector[UnsupportedAnswer]):
    """At the close.

    The words of the run's answer were not among what was retrieved, beyond what chance would bring.

    What was retrieved is kept as a set of bits. The more of them are set, the more words are there
    by chance; that share is subtracted before the answer is compared.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._min_overlap = self.rule.min_overlap

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Note what was retrieved and what may be the answer."""
        if step.kind in CALLS:
            if (
                step.status == "ok"
                and query_of(step.kind, contents)
                and not is_empty(step, contents)
            ):
                self._retrieved(run, step, contents)
        elif contents.output and (step.kind in ("output", "llm_call") or not step.parent):
            # The root's output is the run's answer; without one an output step, else the model's
            # last words.
            rank = 3 if not step.parent else 2 if step.kind == "output" else 1
            self._answered(run, step, contents, rank)
        return NOTHING

    def _retrieved(self, run: Run, step: StepInfo, contents: Contents) -> None:
        own: dict[str, Any] = self.state(run, {})
        found = content_words(retrieved_text(contents, ""))
        own["bits"] = f"{int(own.get('bits', '0'), 16) | set_bits(found, _ANSWER_BITS):x}"
        own["words"] = own.get("words", 0) + len(found)
        steps: list[str] = own.setdefault("steps", [])
        if len(steps) < 10:
            steps.append(step.step_id)

    def _answered(self, run: Run, step: StepInfo, contents: Contents, rank: int) -> None:
        own: dict[str, Any] = self.state(run, {})
        order = [rank, step.end_us, step.step_id]
        if order > own.get("order", [0, 0, ""]):
            marks = sorted(crc32(word) for word in content_words(answer_words(contents)))[:128]
            own["order"], own["answer"] = order, marks

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Compare the answer."""
        own = run.detector_state.get(self.name)
        if (
            not own
            or own.get("words", 0) < _MIN_RETRIEVED
            or len(own.get("answer", ())) < _MIN_ANSWER
        ):
            return NOTHING
        bits, answer = int(own["bits"], 16), own["answer"]
        share = sum(bits >> mark % _ANSWER_BITS & 1 for mark in answer) / len(answer)
        chance = bits.bit_count() / _ANSWER_BITS
        # With nine bits of ten set nearly every word is found by chance: then nothing is reported.
        overlap = max(0.0, (share - chance) / (1 - chance)) if chance < 0.9 else 1.0
        if overlap >= self._min_overlap:
            return NOTHING
        return (
            Observation(
                message="the answer shares next to nothing with what was retrieved for it "
                f"({overlap:.0%} of its words)",
                detail="it may come from the model's memory, or the retrieval was about something "
                "else",
                severity=self.severity("warning"),
                step_ids=(own["order"][2], *own["steps"]),
                value=overlap,
                threshold=self._min_overlap,
                unit="ratio",
            ),
        )
