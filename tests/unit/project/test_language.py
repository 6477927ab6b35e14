"""The project's language: words that are not used, figures of comments and line lengths.

``python -m tests.unit.project.test_language [FOLDER...]`` prints what is found, with file and line.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.paths import ROOT

# Each with what is written in its place. Whole words, in any case; parts of identifiers count.
WORDS: Final = {
    r"dear(er|est)?": "expensive",
    r"grave(r|st|ly)?": "severe, serious",
    r"told|tells?|telling|untold": "report, log, return, send",
    r"says?|said|saying": "state, log, return, report",
    r"troubles?|troubled": "failure, problem, outage",
    r"held": "in memory, pending, kept",
    r"holders?": "OffsetHold, owner",
    r"sane": "valid, clamped",
    r"looks?|looked|looking": "check, read, view, wake-up",
    r"judges?|judged|judging|judge?ments?": "evaluate, decide",
    r"obeys?|obeyed|obedien(ce|t)": "acknowledgement",
    r"purses?": "BudgetLedger",
    r"strays?": "leftover",
    r"heirs?": "successor",
    r"carriers?": "workers",
    r"beside": "next to, with, as well as",
    r"seldom": "rarely",
    r"floors?": "safe offset",
    r"cover(s|ed|ing)?|uncovered": "checkpoint; contain",
    r"lanes?": "PartitionBatcher, SubscriptionQueue",
    r"workshops?": "BatchWriter",
    r"feeds?|feeder|feeding": "process, TopicHandler",
    r"heavy|heavier": "large, slow",
    r"kits?": "context, helper",
    r"whoever|nobody|somebody|anybody|everybody": "the caller, the user, no process",
    r"mishaps?": "failure",
    r"deeds?": "action",
}

PHRASES: Final = {
    r"put away": "store",
    r"made sane": "clamped",
    r"minded": "handled",
    r"as one sees it|comes to nothing|hears? of|heard of": "is notified of",
}

# Plain English in which a listed word has another sense.
PLAIN: Final = re.compile(
    r"look(s|ed|ing)?[ -]?ups?\b|look(s|ed|ing)? (like|for)\b|look-ups?|lookups?|"
    r"\bcarrier[- ]grade",
    re.IGNORECASE,
)

# Names on the wire, in settings, and of other people's software.
NAMES: Final[dict[str, str]] = {
    "max_held_bytes": "a setting",
    "STEPSTREAM_MAX_HELD_BYTES": "a setting",
    "max-held-bytes": "a setting",
    "held_bytes": "a metric",
    "stepstream_worker_held_bytes": "a metric",
    "stepstream_worker_window_held_records": "a metric",
    "stepstream_worker_floor_lag_records": "a metric",
    "floor_lag_records": "the same metric without its prefix",
    "stepstream_worker_floor_age_seconds": "a metric",
    "told_seq": "a field of deliveries",
    "told_state": "a field of deliveries",
    "told_severity": "a field of deliveries",
    "told_at": "a field of deliveries",
    "look_ahead": "a regular expression's",
    "lookahead": "a regular expression's",
    "lookbehind": "a regular expression's",
}

# (file, word) with the reason; an empty word stands for every word.
EXCEPTIONS: Final[dict[tuple[str, str], str]] = {
    ("stream/detectors/content/injection_forms.py", "tell"): "a word of instructions in texts",
    ("stream/detectors/content/injection_forms.py", "telling"): "a word of instructions in texts",
    ("tests/unit/stream/detectors/content/test_injection.py", "tell"): "an instruction in a text",
    ("tests/unit/project/test_language.py", ""): "the list itself",
    ("tests/unit/producers/gateway/test_frameworks.py", "say"): "a name in a recorded trace",
    ("sinks/notify/channel.py", "told"): "a label of a metric",
    ("sinks/clickhouse/migrations/0001_steps.sql", "says"): "released migrations stay as they are",
    ("sinks/clickhouse/migrations/0012_findings.sql", "said"): "released",
    ("sinks/clickhouse/migrations/0013_usage_details.sql", "beside"): "released",
    ("schemas/metrics.py", "told"): "a label of a metric",
    ("docs/metrics.md", "told"): "a label of a metric",
    ("schemas/alert_actions.py", "said"): "a part of ids of findings",
    ("stepstream/cli/subscriptions.py", "told"): "an outcome in responses of the admin API",
    ("CHANGELOG.md", "trouble"): "names the page that was renamed",
    ("docs/glossary.md", "floor"): "names the old word for readers of old records",
    ("evals/blame/features.py", "say"): "a word in answers of models",
    ("producers/replay/recording.py", "tell"): "a method of Python's files",
    ("stream/detectors/aftermath.py", "look"): "a word in names of tools",
    ("stream/detectors/aftermath.py", "say"): "a word in names of tools",
    ("stream/detectors/content/base.py", "held"): "a key in state records",
    ("stream/detectors/content/failure_words.py", "covered"): "a word in outputs of tools",
    ("stream/detectors/content/failure_words.py", "look"): "a word in names of tools",
    ("stream/detectors/content/failure_words.py", "tell"): "a word in names of tools",
    ("stream/detectors/content/not_retried.py", "told"): "a key in state records",
    ("stream/detectors/content/retrieval.py", "tell"): "a function word of English",
    ("stream/detectors/content/speech.py", "trouble"): "a word in answers of models",
    ("stream/detectors/content/speech.py", "tell"): "a word in answers of models",
    ("stream/detectors/tool_errors.py", "judged"): "a key in state records",
    ("stream/detectors/tool_errors.py", "told"): "a key in state records",
    ("tests/unit/stream/test_restored_records.py", "judge"): "a key in state records",
    ("tests/unit/stream/test_restored_records.py", "judged"): "a key in state records",
    ("stream/usage/windows/checkpoint.py", "judge"): "a key in state records",
    ("stream/usage/windows/checkpoint.py", "judged"): "a key in state records",
}

SUFFIXES: Final = (".py", ".md", ".sql", ".yaml", ".yml", ".toml", ".xml", ".sh")
_WORD: Final = re.compile(
    "|".join(f"(?P<w{n}>\\b(?:{word})\\b)" for n, word in enumerate(WORDS))
    + "|"
    + "|".join(f"(?P<p{n}>\\b(?:{phrase})\\b)" for n, phrase in enumerate(PHRASES)),
    re.IGNORECASE,
)
_PARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_NESTED: Final = ("stream", "sinks", "tests", "stepstream")
_LINKED: Final = ("schemas", "producers", "stream", "sinks", "evals")
_LINKS: Final = tuple(f"stepstream/{package}/" for package in _LINKED)


class Hit(NamedTuple):
    """A listed word where it stands."""

    file: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r} in {self.text.strip()[:100]!r}"


_FETCHED: Final = (
    "node_modules",
    "console/web/node_modules",
    "console/static",
    "clients/typescript/node_modules",
    "clients/typescript/dist",
)


def files() -> Iterator[Path]:
    """Every text of the project, each once."""
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in Path(name).parts)
        elsewhere = name.startswith((*_LINKS, "tests/golden", "dist", "build", *_FETCHED))
        if path.suffix in SUFFIXES and path.is_file() and not hidden and not elsewhere:
            yield path


def package_of(name: str) -> str:
    """The package of a file."""
    parts = name.split("/")[:-1]
    if name == "sinks/README.md":  # its map has the descriptions of sinks/batching
        return "sinks/batching"
    if not parts:
        return "top"
    if parts[0] in _NESTED and len(parts) > 1:
        return "/".join(parts[:2])
    return parts[0]


def words_in(text: str) -> Iterator[str]:
    """The listed words of a text."""
    # Most lines have no listed word, and searching them for names as well takes much longer.
    if _WORD.search(_PARTS.sub(" ", text)) is None:
        return
    for name in NAMES:
        text = re.sub(rf"\b{name}\b", " ", text, flags=re.IGNORECASE)
    for found in _WORD.finditer(PLAIN.sub(" ", _PARTS.sub(" ", text))):
        yield found.group().lower()


def hits_of(path: Path) -> Iterator[Hit]:
    """Listed words of a file: of code the identifiers, strings and comments; of others all text."""
    name = path.relative_to(ROOT).as_posix()
    if (name, "") in EXCEPTIONS:
        return
    for number, line in _texts(path):
        for word in words_in(line):
            if (name, word) not in EXCEPTIONS:
                yield Hit(name, number, word, line)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    if path.suffix == ".sql":
        for number, line in enumerate(text.splitlines(), 1):
            if "--" in line:
                yield number, line.partition("--")[2]
        return
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT, tokenize.STRING):
            for number, line in enumerate(token.string.splitlines(), token.start[0]):
                yield number, line


def comments_per_100_lines(path: Path) -> tuple[int, int]:
    """Comment lines and lines of code (without blank ones and docstrings) of a Python file."""
    text = path.read_text()
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not re.match(r"# (noqa|type:|fmt:)", token.string)
    }
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            strings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = {n for n, line in enumerate(text.splitlines(), 1) if line.strip()}
    return len(comments), len(lines - strings)


def long_lines(path: Path) -> tuple[int, int]:
    """Lines of more than 100 characters, and all lines."""
    lines = path.read_text().splitlines()
    return sum(len(line) > 100 for line in lines), len(lines)


def test_no_package_uses_a_listed_word() -> None:
    """Plain technical English in code, docs, settings and tests."""
    hits = [hit for path in files() for hit in hits_of(path)]
    assert [str(hit) for hit in hits] == []


def test_listed_words_are_found_wherever_they_stand() -> None:
    """In identifiers of both styles, in comments, and in any case; not inside other words."""
    assert list(words_in("def is_held(self)")) == ["held"]
    assert list(words_in("HeldRecords beside")) == ["held", "beside"]
    assert list(words_in("withheld, essay, look up, floorplan")) == []


def main(folders: list[str]) -> None:
    """Print every hit below the folders, and the figures of each package."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    comments: dict[str, Counter[str]] = defaultdict(Counter)
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        package = package_of(name)
        for hit in hits_of(path):
            counts[package][hit.word] += 1
            if folders and name.startswith(tuple(folders)):
                print(hit)
        if path.suffix == ".py":
            made, code = comments_per_100_lines(path)
            long, lines = long_lines(path)
            comments[package].update(comments=made, code=code, long=long, lines=lines)
    for package in sorted(comments.keys() | counts.keys()):
        figures = comments[package]
        share = 100 * figures["comments"] / max(1, figures["code"])
        over = 100 * figures["long"] / max(1, figures["lines"])
        words = ", ".join(f"{word} {n}" for word, n in counts[package].most_common(6))
        total = sum(counts[package].values())
        print(
            f"{package:20} {total:5} words, {share:4.1f} comments/100, {over:4.1f} % long: {words}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
