"""Checks of a run's answer: the output of its root, else of its last output or model step."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final

from stepstream.schemas.criteria import AnswerCheck, folded
from stepstream.stream.detectors.criteria.outcome import PASSED, Outcome, failed, unknown
from stepstream.stream.run.contents import Contents, json_of
from stepstream.stream.run.steps import StepInfo

MAX_DOCUMENTS: Final = 200
_RANKS: Final = {"output": 1, "llm_call": 2}
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_MISSING: Final = object()


class PatternError(Exception):
    """A regular expression that cannot be evaluated here."""


def note_answer(kept: dict[str, Any], info: StepInfo, contents: Contents) -> None:
    """Keep the output if it is the answer so far: the root's, else the latest one."""
    rank = 0 if not info.parent else _RANKS.get(info.kind)
    if rank is None or not (contents.output or contents.output_is_cut):
        return
    order = [-rank, info.end_us, info.step_id]
    known = kept.get("answer")
    if known is None or order > known[0]:
        kept["answer"] = [order, contents.output, contents.output_is_cut]


def note_documents(kept: dict[str, Any], contents: Contents) -> None:
    """Keep the ids of retrieved documents, which an answer may cite."""
    ids: list[str] = kept.setdefault("documents", [])
    for document in contents.step.documents:
        if len(ids) < MAX_DOCUMENTS and document.id and document.id not in ids:
            ids.append(document.id[:200])


def answer(check: AnswerCheck, kept: dict[str, Any]) -> Outcome:
    """Whether the answer is as the check requires."""
    known = kept.get("answer")
    if known is None:
        return unknown("no answer is recorded")
    (_, _, step_id), text, is_cut = known
    if check.path:
        value = _at(json_of(text), check.path)
        if value is _MISSING:
            missing = f"the answer has no field {check.path}"
            return (
                unknown(f"{missing} in its recorded part") if is_cut else failed(missing, step_id)
            )
        text = value if isinstance(value, str) else _text_of(value)
    try:
        reason = _problem(check, text, kept)
    except PatternError as error:
        return unknown(str(error), step_id)
    if not reason:
        # Of a cut text, a part is missing in which an excluded text may be.
        return unknown("a part of the answer is missing") if is_cut and check.excludes else PASSED
    if is_cut and not reason.startswith("the answer contains"):
        return unknown("a part of the answer is missing", step_id)
    return failed(reason, step_id)


def _problem(check: AnswerCheck, text: str, kept: dict[str, Any]) -> str:
    """What is wrong with the answer, in words of the document; empty if nothing is."""
    whole = folded(text)
    subject = f"{check.path} of the answer" if check.path else "the answer"
    if check.equals is not None and whole != folded(check.equals):
        return f"{subject} is not {check.equals!r}"
    for wanted in check.contains:
        if folded(wanted) not in whole:
            return f"{subject} does not contain {wanted!r}"
    for unwanted in check.excludes:
        if folded(unwanted) in whole:
            return f"the answer contains {unwanted!r}"
    if check.regex and not matches(check.regex, text):
        return f"{subject} does not match {check.regex!r}"
    if check.number is not None and not _has_number(text, check.number, check.within):
        within = f" within {check.within:g}" if check.within else ""
        return f"{subject} has no number {check.number:g}{within}"
    if check.cites and not any(one in text for one in kept.get("documents", ())):
        return f"{subject} cites no retrieved document"
    return ""


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern is found. Raises ``PatternError``."""
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    # RE2 takes time linear in the text. Python's own engine takes exponential time for patterns
    # such as (a+)+b, and cannot be interrupted.
    try:
        import re2
    except ImportError:
        raise PatternError("the package google-re2, which evaluates regex, is missing") from None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise PatternError(f"{pattern!r} is no regular expression of RE2") from None


def _has_number(text: str, wanted: float, within: float) -> bool:
    for found in _NUMBER.finditer(text):
        try:
            value = float(found[0].replace(",", ""))
        except ValueError:
            continue
        if math.isclose(value, wanted, rel_tol=1e-9, abs_tol=max(within, 1e-12)):
            return True
    return False


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdecimal():
            if int(part[:9]) >= len(value):
                return _MISSING
            value = value[int(part[:9])]
        else:
            return _MISSING
    return value


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
