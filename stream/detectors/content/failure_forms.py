"""Forms of text that show a failure in any language, and forms in which one is only mentioned.

Failures: what a runtime prints when a program ends on an error, a severity word at the start of a
line, a spreadsheet's error value. Not failures: tables and lists, attempts of which the last one
succeeded, a tool that did what it was asked to do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_TRACE_SIGNS: Final = (
    "anic",
    "Error",
    "xception",
    "Uncaught",
    "terminate called",
    "atal",
    "core dumped",
    "tack trace",
    "tacktrace",
)
_TRACE: Final = re.compile(
    r"""^[ \t]{0,8}(?:panic:\ \S | thread\ '[^'\n]{0,80}'\ panicked\ at | terminate\ called\ after
      | (?:[Uu]nhandled|[Uu]ncaught|UNHANDLED|[Ff]atal)\ (?:\w{1,30}\ ){0,2}(?:\w{0,40}[Ee]rror|
        \w{0,40}[Ee]xception)\b
      | [Ee]xception\ in\ | (?:PHP\ )?Fatal\ error:\ | [Cc]aused\ by:\ \S |
        \*\*\ \([\w.]{1,60}\)\ \S
      | (?:[\w$]{1,40}(?:\.|::)){0,8}[A-Z]\w{0,60}(?:Error|Exception):\ \S
      | [^\n]{1,200}\n[ ]{0,2}[Ss]tack\ ?trace(?:back)?:$
      | [^\n]{0,80}core\ dumped\b | Error\ in\ [^\n]{1,80}\ :\ )[^\n]{0,240}""",
    re.MULTILINE | re.VERBOSE,
)
"""The line in which a runtime reports why a program ended."""
SEVERITY: Final = re.compile(
    r"""[\W_]{0,8}(?:\(error\)\s
      | (?:fehler|fataler\ fehler|erreur|[ée]chec|errore|erro|fout|fel|feil|fejl|b[łl][ąa]d|chyba|
        hiba|hata|eroare|virhe|
           ошибка|помилка|σφάλμα|오류|エラー|错误|錯誤|失败|失敗|خطأ|त्रुटि|l[ỗo]i|
           kesalahan)\b[^\n:：]{0,40}[:：]\s*\S
      | (?:エラー|错误|錯誤|오류|[^\s:：]{1,12}(?:失败|失敗))\s*[:：]\s*\S
      | (?:\w{1,20}::)?(?-i:E(?:RR_[A-Z_]{4,40}|(?:CONN|TIMED|NOTFOUND|PIPE|HOST|NET|ADDR|ACCES|
        PERM|NOENT|EXIST)[A-Z]{0,12}))\b
      | \((?-i:[A-Z][a-z]+[A-Z]\w{2,40})\)\ (?:the|you|an?|this|no|it)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""A severity word or an error's code in front of what happened."""
_CELL: Final = re.compile(r"#(?:[A-Z]{3,8}[!?]?|DIV/0!|N/A)")
_ROW: Final = re.compile(r"\s*(?:[-*\u2022]\s+\S|\d+[.)]\s+\S)")
_ENDS_WELL: Final = re.compile(
    r"\b(?:succe(?:ss|eded|ssful|ssfully)|passed|completed?(?=[:.,!]|\s+in\b|$)|"
    r"finished(?! with)|is live|recovered|reconnected|ok(?!=)|done)\b|\u2713",
    re.IGNORECASE,
)
_BAD_WORD: Final = re.compile(
    r"\b(?:not|no|never|cannot|fail\w*|error\w*|unable|aborted|partial\w*|un\w+ful|"
    r"before|once|until|if|when|to be|rollback|roll\w* back|revert\w*|restor\w*|clean-?up)\b|"
    r"n['\u2019]t\b",
    re.IGNORECASE,
)
_NO_FAILURE: Final = re.compile(
    r"(?<![=\d])\b(?:0|no|zero) (?:\w+ )?(?:fail\w*|errors?)\b|\bfail(?:ed|ures?)\s?[:=]\s?0\b",
    re.IGNORECASE,
)
_TIMED_LINE: Final = re.compile(r"^\[?(?:\d{4}-\d\d-\d\d|\d\d:\d\d|\w{3} \d\d )", re.MULTILINE)
_QUOTED: Final = re.compile(r"""(?<![\w])(?:'[^'\n]{3,120}'|"[^"\n]{3,120}")(?!\w)""")
_WORDS: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNDONE: Final = frozenset(
    [
        "not",
        "never",
        "cannot",
        "can't",
        "couldn't",
        "wasn't",
        "isn't",
        "already",
        "could",
        "failed",
        "unable",
        "no",
        "nothing",
        "none",
        "can",
        "may",
        "must",
        "should",
        "only",
        "skipped",
        "except",
    ]
)
_FULL: Final = re.compile(
    r"\b(?:fully|double|over)[- ]?booked\b|\bbooked (?:out|up|by)\b|\b(?:before|twice)[.!]?$", re.I
)
_PART_OF: Final = re.compile(r"\b(\d{1,9}) (?:of|out of) (\d{1,9})\b")
_TRANSFORMING: Final = re.compile(
    r"(?:^|[_\W])(?:translat|summar|classif|categor|sentiment|extract|explain|rewrit|paraphras|"
    r"transcri|ocr|wiki|ask_user|think|thought|reflect|reasoning)",
    re.IGNORECASE,
)


def runtime_error(text: str) -> str:
    """The last line of a program's text in which a runtime reports an error.

    Empty if there is none.
    """
    for start in sorted(_starts_of_signs(text), reverse=True):
        found = _TRACE.match(text, start)
        if found is not None:
            line = found[0].strip().partition("\n")[0]
            # Rust puts the message below the line that ends with a colon.
            rest = text[found.end() + 1 : found.end() + 241].partition("\n")[0].strip()
            return f"{line} {rest}" if line.endswith(":") else line
    return ""


def _starts_of_signs(text: str) -> set[int]:
    """Where the lines begin that hold a sign of an error.

    Of what stands above a stack trace the line before it.
    """
    starts = set()
    for sign in _TRACE_SIGNS:
        at = text.find(sign)
        while at >= 0:
            start = text.rfind("\n", 0, at) + 1
            starts.add(
                text.rfind("\n", 0, start - 1) + 1 if sign.startswith("tack") and start else start
            )
            end = text.find("\n", at)
            at = text.find(sign, end) if end >= 0 else -1
    return starts


def is_error_value(text: str) -> bool:
    """Whether a text is a spreadsheet's error value and nothing else."""
    return len(text) <= 12 and _CELL.fullmatch(text.strip()) is not None


def is_table(text: str) -> bool:
    """Whether a text begins with three rows of the same columns, or with two items of a list.

    What it holds is data.
    """
    lines = [line for line in text[:1_500].split("\n", 8)[:8] if line.strip()]
    if len(lines) < 2:
        return False
    if all(_ROW.match(line) for line in lines[:2]):
        return True
    rows = [line for line in lines if line.strip("-+|=: \t")][:3]
    return len(rows) == 3 and (
        _alike(rows, "|")
        or _alike(rows, "\t")
        or (_alike(rows, ",") and not any(": " in row for row in rows))
    )


def is_log(text: str) -> bool:
    """Whether two lines of a text begin with a time: a log of events."""
    return len(_TIMED_LINE.findall(text[:1_500])) > 1


def without_quotations(text: str) -> str:
    """A tool's own words, without the names, titles and messages that it quotes."""
    return _QUOTED.sub("''", text) if "'" in text or '"' in text else text


def _alike(rows: list[str], separator: str) -> bool:
    counts = {row.count(separator) for row in rows}
    return len(counts) == 1 and counts != {0}


def ends_well(text: str) -> bool:
    """Whether the last line of a text, or the last sentence of its only line, reports a success."""
    last = text[-1_000:].rstrip().rpartition("\n")[2]
    if last == text.rstrip():
        last = re.split(r"[.;!?]\s+|,\s+(?=then\b|second\b|third\b|now\b)", last)[-1]
        if last == text.rstrip():
            return False
    # A sentence about the outcome is short; a long last line is contents.
    if len(last) > 200 or not _ENDS_WELL.search(last):
        return False
    return _BAD_WORD.search(_NO_FAILURE.sub("", last)) is None


@lru_cache(4_096)
def transforms(label: str) -> bool:
    """Whether a tool gives back what it was given in other words: their sense is not the tool's."""
    return _TRANSFORMING.search(label) is not None


@lru_cache(4_096)
def _stems(label: str) -> tuple[str, ...]:
    words = _CAMEL.sub("_", label).lower().replace("-", "_").split("_")
    return tuple(
        # Without a final e, so that "approved" matches approve.
        word[: max(4, len(word) - 1)]
        for word in words
        if len(word) >= 4
    )


def reports_success(label: str, text: str) -> bool:
    """Whether the first sentence reports that the tool did what it is named for.

    A requested rejection is no failure.
    """
    # "3 of 5 rows imported" is no success.
    if any(part[1] != part[2] for part in _PART_OF.finditer(text[:400])):
        return False
    stated = [
        word.lower() for word in _WORDS.findall(re.split(r"[.,;!?\n]", text[:400], maxsplit=1)[0])
    ]
    if not _UNDONE.isdisjoint(stated) or _FULL.search(text[:400]):
        return False
    return any(
        word.endswith("ed") and word.startswith(stem) for stem in _stems(label) for word in stated
    )
