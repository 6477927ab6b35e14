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
_EDITED: Final = frozenset({
    "path", "file", "file_path", "filename", "old_str", "new_str", "file_text", "insert_line",
    "view_range", "selector", "element", "url",
})  # fmt: skip
_IS_CODE: Final = re.compile(r"[\n(=]|\w \w")
"""In a program, not in a voucher's code."""
_COMMAND: Final = re.compile(
    r"(?:^|[;&|]\s*)(?:sudo\s+)?[\w./+-]+(?:\s+\S+)*?\s+--?[A-Za-z]|&&|\|\||\s\|\s|^\s*\$ |"
    r"[^\s]/[^\s]+\s|[<>]{1,2}\s*\S+$"
)
# One of these is in every command that the pattern finds.
_COMMAND_SIGNS: Final = ("-", "&&", "|", "$ ", "/", "<", ">")
_FUNCTION_WORDS: Final = word_list(
    """
    the of to is are was were what who whom whose which where when why how does did do can could
    should would will please and or for with about that this these those there their our your my me
    you it its from by as at an be been has have had if whether any all into than then so
    """
)
_RUNNING: Final = re.compile(
    r"(?:^|[_\W])(?:run|exec\w*|bash|shell|terminal|console|python\w*|code|command|cmd|script|"
    r"jupyter|notebook|repl|sandbox|ansible|terraform|helm|gradle|mvn|maven|yarn|pnpm|cargo|node|"
    r"ruby|perl|php|powershell|pwsh|etl|batch|"
    r"build|compile|make|test|tests|pytest|npm|install|deploy|cli|subprocess|interpreter|"
    r"computer_?terminal|kernel|step|"
    r"migrate|lint|docker|kubectl|ssh|job|task|pipeline)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_PROGRAMS: Final = re.compile(r"(?:^|[;&|(]\s*|\bsudo\s+|\bxargs\s+)([\w./+-]+)")
# Programs that put their names before messages about what they do.
_CHATTY: Final = word_list("go make gmake ninja npm cargo echo printf time nix bazel node python")
_PROGRESS: Final = re.compile(
    r"^(?:warning|info|note|debug|\w+ing\b|nothing|done|ok|finished|version|success\w*|\d)|"
    r"\b(?:up to date|successfully|no (?:errors|problems))\b",
    re.IGNORECASE,
)
_LOGS: Final = re.compile(
    r"(?:^|[_\W])(?:git[_\W]?(?:log|diff|show|blame)|browser_console|console_?(?:logs?|messages?)|"
    r"(?:get|read|show|view|tail|list|fetch|search|query)_?(?:\w+_)?logs?|logs?|log_?(?:search|"
    r"query)|journal|history)(?:$|[\W\d])",
    re.IGNORECASE,
)
_READS_FIRST: Final = re.compile(
    r"(?i:get|read|list|show|view|describe|find|search|fetch)_(?!\w*(?:output|terminal|console|result))"
)
_EDITING: Final = re.compile(r"(?:^|[_\W])(?:edit|insert|replace|rename)(?:$|[_\W])", re.IGNORECASE)
_SHOWING: Final = re.compile(
    r"^\s*(?:sudo\s+|cd\s+\S+\s*(?:&&|;)\s*)*(?:cat|grep|egrep|rg|ag|less|more|head|tail|sed\s+-n|"
    r"awk|zcat|strings|journalctl|"
    r"docker\s+(?:compose\s+)?logs|kubectl\s+(?:logs|describe)|dmesg|ps|env|printenv|history|"
    r"find|locate|git\s+(?:log|show|diff|blame|grep)|echo|open|view|cut|sort|man|nl|bat)(?=\s|$)",
    re.IGNORECASE,
)


_CHANGING: Final = re.compile(
    r"(?:^|[;&|]\s*)(?:sudo\s+)?(?:sed\s+-i|rm|mv|cp|mkdir|touch|tee|patch|chmod|ln|"
    r"git\s+(?:bisect|restore|switch|cherry-pick|revert|add|commit|apply|checkout|merge|rebase|stash|mv|rm|reset|push|pull)|"
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
    if text.count(" ") < 4:
        return False
    begin = text[:200]
    if any(sign in begin for sign in _COMMAND_SIGNS) and _COMMAND.search(begin):
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
    if shows_something(contents) or shows_log(label) or _READS_FIRST.match(label):
        return False
    return (_is_running(label) and not _EDITING.search(label)) or (
        contents.arguments is not None and bool(command_of(contents))
    )


@lru_cache(4_096)
def shows_log(label: str) -> bool:
    """Whether a tool by its name shows a log or a history, in which others report failures."""
    return _LOGS.search(label) is not None


def shows_something(contents: Contents) -> bool:
    """Whether the call is a command that shows what a file or a log holds."""
    command = command_of(contents)
    return bool(command) and _SHOWING.match(command) is not None


def program_error(output: str, contents: Contents) -> str:
    """The first line of what a command printed, where it starts with the name of its program.

    Programs report their errors so ("find: unknown predicate"), whatever words they use.
    """
    name, colon, rest = output[:200].partition("\n")[0].partition(": ")
    if not colon or not rest or not name.isascii() or len(name) > 40 or name in _CHATTY:
        return ""
    command = command_of(contents)
    if not command or _PROGRESS.search(rest):
        return ""
    programs = {part.rpartition("/")[2] for part in _PROGRAMS.findall(command)}
    return f"{name}: {rest}" if name.rpartition("/")[2] in programs else ""


def views(contents: Contents) -> bool:
    """Whether the call is an editor's operation that shows a file."""
    given = contents.arguments
    return given is not None and given.get("command") in ("view", "open", "read", "list", "cat")


def changes_something(contents: Contents) -> bool:
    """Whether the call is a command that changes files, a repository or what is installed."""
    return is_command(contents) and _CHANGING.search(command_of(contents)) is not None


def is_command(contents: Contents) -> bool:
    """Whether the call is a command or code by the name that it stands under."""
    return contents.arguments is not None and bool(command_of(contents))


def command_of(contents: Contents) -> str:
    """The command or the code of a call; its whole input where that has no parts.

    Empty where it is neither.
    """
    noted = contents.noted
    command: str | None = noted.get("command")
    if command is None:
        command = noted["command"] = _command_of(contents)
    return command


def _command_of(contents: Contents) -> str:
    given = contents.arguments
    if given is None:
        return contents.input[:_MAX_EXAMINED]
    for name, value in given.items():
        if (
            isinstance(value, str)
            and name.lower() in _PROGRAM_KEYS
            # "code" is as often a voucher's or a country's.
            and (name.lower() != "code" or _IS_CODE.search(value))
            # An editor's "command" is the name of an operation: view, create, str_replace.
            and (not value.replace("_", "").isalpha() or _EDITED.isdisjoint(given))
        ):
            return value[:_MAX_EXAMINED]
    return ""
