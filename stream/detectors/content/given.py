"""What a call was given: a question in words, a command, code, or the values of a form."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from stepstream.stream.run.contents import Contents


def word_list(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


_MAX_EXAMINED: Final = 600
_PROGRAM_KEYS: Final = frozenset({
    "command", "cmd", "commands", "code", "script", "bash", "shell", "sql", "program", "python",
    "source", "argv", "cell", "statement", "command_line", "keystrokes",
})  # fmt: skip
_IS_CODE: Final = re.compile(r"[\n(=]|\w \w")
"""In a program, not in a voucher's code."""
_COMMAND: Final = re.compile(
    r"(?:^|[;&|]\s*)(?:sudo\s+)?[\w./+-]+(?:\s+\S+)*?\s+--?[A-Za-z]|&&|\|\||\s\|\s|^\s*\$ |"
    r"[^\s]/[^\s]+\s|[<>]{1,2}\s*\S+$"
)
_FUNCTION_WORDS: Final = word_list(
    """
    the of to is are was were what who whom whose which where when why how does did do can could
    should would will please and or for with about that this these those there their our your my me
    you it its from by as at an be been has have had if whether any all into than then so
    """
)
_RUNNING: Final = re.compile(
    r"(?:^|[_\W])(?:run|exec\w*|bash|shell|terminal|console|python\w*|code|command|cmd|script|"
    r"jupyter|notebook|repl|sandbox|"
    r"build|compile|make|test|tests|pytest|npm|install|deploy|cli|subprocess|interpreter|"
    r"computer_?terminal|kernel|step|"
    r"migrate|lint|docker|kubectl|ssh|job|task|pipeline)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_SHOWING: Final = re.compile(
    r"^\s*(?:sudo\s+|cd\s+\S+\s*(?:&&|;)\s*)*(?:cat|grep|egrep|rg|ag|less|more|head|tail|sed\s+-n|"
    r"awk|zcat|strings|journalctl|"
    r"find|locate|git\s+(?:log|show|diff|blame|grep)|echo|open|view|cut|sort|man|nl|bat)\b",
    re.IGNORECASE,
)


_CHANGING: Final = re.compile(
    r"(?:^|[;&|]\s*)(?:sudo\s+)?(?:sed\s+-i|rm|mv|cp|mkdir|touch|tee|patch|chmod|ln|"
    r"git\s+(?:add|commit|apply|checkout|merge|rebase|stash|mv|rm|reset|push|pull)|"
    r"(?:pip|npm|yarn|apt|apt-get|cargo|go|brew)\s+(?:install|add|i|get))\b|"
    r"(?<![<>2&=-])>{1,2}\s*(?!/dev/null)[\w./~]"
)


def has_free_text(contents: Contents) -> bool:
    """Whether the call was put in words.

    Then its answer is words too, and they need not speak of the call.
    """
    noted = contents.noted
    if "free_text" not in noted:
        noted["free_text"] = _has_free_text(contents)
    return bool(noted["free_text"])


def _has_free_text(contents: Contents) -> bool:
    given = contents.arguments
    if given is None:
        return is_in_sentences(contents.input[:_MAX_EXAMINED])
    return any(
        isinstance(value, str)
        and name.lower() not in _PROGRAM_KEYS
        and is_in_sentences(value[:_MAX_EXAMINED])
        for name, value in given.items()
    )


def is_in_sentences(text: str) -> bool:
    """Whether a text is a sentence: at least five words, two of them function words."""
    # Five words have four blanks: counting them is cheaper than splitting the text.
    if text.count(" ") < 4 or _COMMAND.search(text[:200]):
        return False
    words = text.lower().replace("?", " ").replace(",", " ").replace(".", " ").split()
    return len(words) >= 5 and sum(word in _FUNCTION_WORDS for word in words[:60]) >= 2


@lru_cache(4_096)
def _is_running(label: str) -> bool:
    return _RUNNING.search(label) is not None


def runs_program(contents: Contents, label: str) -> bool:
    """Whether the call ran a program: its output is then the outcome and not requested content."""
    noted = contents.noted
    if "runs" not in noted:
        noted["runs"] = _runs_program(contents, label)
    return bool(noted["runs"])


def _runs_program(contents: Contents, label: str) -> bool:
    if shows_something(contents):
        return False
    return _is_running(label) or (contents.arguments is not None and bool(_command_of(contents)))


def shows_something(contents: Contents) -> bool:
    """Whether the call is a command that shows what a file or a log holds."""
    command = _command_of(contents)
    return bool(command) and _SHOWING.match(command) is not None


def changes_something(contents: Contents) -> bool:
    """Whether the call is a command that changes files, a repository or what is installed."""
    return is_command(contents) and _CHANGING.search(_command_of(contents)) is not None


def is_command(contents: Contents) -> bool:
    """Whether the call is a command or code by the name that it stands under."""
    return contents.arguments is not None and bool(_command_of(contents))


def _command_of(contents: Contents) -> str:
    """The command or the code of a call; its whole input where that has no parts.

    Empty where it is neither.
    """
    given = contents.arguments
    if given is None:
        return contents.input[:_MAX_EXAMINED]
    for name, value in given.items():
        if (
            isinstance(value, str)
            and name.lower() in _PROGRAM_KEYS
            # "code" is as often a voucher's or a country's.
            and (name.lower() != "code" or _IS_CODE.search(value))
        ):
            return value[:_MAX_EXAMINED]
    return ""
