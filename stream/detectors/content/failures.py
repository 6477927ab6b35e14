"""Whether an output reports a failure although its step is marked ok.

By its form first, by its words if it is one sentence.

Form: JSON with an error, ``success: false``, a status of 400 or more; a line that is an error's,
where programs and tools put such lines: first, behind a preamble, or last; a traceback, an exit
code, an error page. Words count only in an output of a sentence or two, or in the first sentence of
a tool that acts: in a long text they are contents.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from stepstream.stream.detectors.aftermath import is_writing
from stepstream.stream.detectors.content.failure_forms import (
    SEVERITY,
    ends_well,
    is_error_value,
    is_table,
    reports_success,
    runtime_error,
    transforms,
)
from stepstream.stream.detectors.content.failure_lines import (
    failed_at_the_ends,
    shell_error,
    traceback_error,
)
from stepstream.stream.detectors.content.failure_sentences import (
    failing_sentence,
    is_document,
    reads,
    untransformed,
)
from stepstream.stream.detectors.content.failure_words import (
    ASK_AGAIN,
    BAD_STATUS,
    CODE_KEYS,
    DONE_COUNTS,
    ERROR_KEYS,
    FAILED_COUNTS,
    FAILED_KEYS,
    HTTP_STATUS,
    INNER_KEYS,
    MESSAGE_KEYS,
    MESSAGE_LIKE,
    NO_ERROR,
    NOT_ABLE,
    NOT_DONE,
    NOTHING_FOUND,
    NOTHING_WRONG,
    PLAIN_FAILING,
    REFUSED_STATUS,
    SEARCHED_BY,
    SEARCHING,
    SENTENCE_START,
    STATUS_KEYS,
    SUCCEEDING,
    SUCCESS_KEYS,
    begins_as_error,
    is_error_key,
)
from stepstream.stream.detectors.content.given import (
    has_free_text,
    is_command,
    program_error,
    runs_program,
    shows_log,
    shows_something,
)
from stepstream.stream.run.contents import Contents, ends_of, json_of

MAX_SENTENCE: Final = 400
"""Characters of an output that may be a message instead of contents."""
_MAX_FIRST: Final = 240
"""Characters of a first line that may be the message of a longer output."""
_START: Final = 200
_MAX_KEY: Final = 40
_MOST_ABOUT_A_PAGE: Final = 160
_CONDITIONS: Final = ("If ", "When ", "Unless ", "Where ", "Whenever ")
TRACEBACK: Final = "a traceback"
_XML: Final = re.compile(
    r"(?:<\?xml[^>]*>\s*)?(?:<\w+:Envelope[^>]*>\s*<\w+:Body[^>]*>\s*)?"
    r"(<(?:\w+:)?(?:Error|ErrorResponse|Fault|Exception|ServiceException)\b)"
)
_TAGGED: Final = re.compile(r"<(?:\w*_)?(?:error|exception)>\s*([^\n<]{1,240})", re.IGNORECASE)
_TAGS: Final = re.compile(r"<[^>]*>")
_LONG_LIST: Final = 1_000
# Not "[01] stage 1 finished", a line of a log.
_LIST: Final = re.compile(r"\[\s*(?:[{\[\"']|-?\d[\d.eE+-]*\s*,|\s)")
_OBJECT_SIGNS: Final = (
    "rr",
    "xception",
    "ault",
    "ail",
    '"success',
    '"succeeded',
    '"ok"',
    '"status',
    '"code',
    '"state',
    '"std',
)
"""Every key that reports a failure contains one of these, in any case."""
MAX_STATUS_KEYS: Final = 6
"""An object with more keys is data: its status is its own, not the call's."""
_MOST_IN_WRAPPER: Final = 3
_ERROR_KEYS: Final = ERROR_KEYS | SUCCESS_KEYS | FAILED_KEYS | STATUS_KEYS | CODE_KEYS
_REPORTING_OR_INNER: Final = _ERROR_KEYS.union(INNER_KEYS, MESSAGE_KEYS)
_PRINTED_KEYS: Final = ("stderr", "stdout", "output", "logs", "result")
"""Under which a program's text is found."""


_DONE: Final = ("ed", "sent", "done", "made", "paid", "sold", "written", "found")
"""Endings of what was to be done."""
_EXIT_KEYS: Final = frozenset({"exit_code", "exitcode", "returncode", "return_code", "exit_status"})


class Failure(NamedTuple):
    """What shows that a tool failed, and its own words."""

    sign: str
    message: str


def failure_in(contents: Contents, label: str, *, form_only: bool = False) -> Failure | None:
    """What shows that the call of a tool failed, from its output alone; None where nothing does.

    With ``form_only`` a sentence's words do not count: the step is no call of a tool.
    """
    noted = contents.noted
    if "failure" not in noted:
        noted["failure"] = _failure_in(contents, label, form_only)
    found: Failure | None = noted["failure"]
    return found


def _failure_in(contents: Contents, label: str, form_only: bool) -> Failure | None:
    output = contents.output
    first = output[:1]
    # A long list is rows of data: parsing it costs time and finds nothing.
    if first == "[" and len(output) > _LONG_LIST and _LIST.match(output):
        return None  # data
    if first == "{" and len(output) > _LONG_LIST and not _may_report(contents):
        return None
    if first in ("{", "[", '"') or first.isspace():
        found = contents.taken
        if found is not None:
            return _in_json(found, contents, label)
    if form_only:
        return _by_form(output, contents, label, len(output) <= MAX_SENTENCE, form_only=True)
    return failure_in_text(output, contents, label)


def _may_report(contents: Contents) -> bool:
    """Whether a long object can be more than data: by its own keys, and by what its ends hold."""
    top = contents.top_of_output
    if top is not None:
        reporting = _ERROR_KEYS if len(top) > _MOST_IN_WRAPPER else _REPORTING_OR_INNER
        if (
            reporting.isdisjoint(map(str.lower, top))
            and _EXIT_KEYS.isdisjoint(top)
            and "stderr" not in top
        ):
            return False
    ends = ends_of(contents.output)
    return any(sign in ends for sign in _OBJECT_SIGNS)


def _in_json(value: Any, contents: Contents, label: str) -> Failure | None:
    if isinstance(value, dict):
        return _in_object(value, contents, label)
    if isinstance(value, str):
        return failure_in_text(value, contents, label)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        # A list with one row is data unless it is the envelope of a message.
        is_row = "level" in value[0] or (reads(label) and "text" not in value[0])
        return None if is_row and "error" not in value[0] else _in_object(value[0], contents, label)
    return None


def _in_object(
    value: dict[str, Any], contents: Contents, label: str, depth: int = 0
) -> Failure | None:
    # An order or a ticket has a status too, and many other fields.
    small = len(value) <= MAX_STATUS_KEYS
    for key, item in value.items():
        found = _by_key(value, key, item)
        if found is None and small:
            found = _by_status(value, key, item, contents, label) or _not_done(
                value, key, item, label
            )
        if found is not None:
            return found
    return _inside(value, contents, label, depth)


def _by_key(value: dict[str, Any], key: str, item: Any) -> Failure | None:
    """A failure that one field states in an object of any size."""
    name = key.lower()
    if (
        len(name) <= _MAX_KEY
        and is_error_key(name)
        and _states_error(item)
        # "errors": 3 is a count, which a report of a linter has when it worked.
        and not (name[-1] == "s" and isinstance(item, int))
    ):
        return Failure(f"it holds {key!r}", _text_of(item) or _message_of(value))
    if name in FAILED_COUNTS and _part_failed(value, item):
        return Failure(f"{key!r} is {item}", _message_of(value))
    if name in SUCCESS_KEYS and (item is False or item == "false"):
        return Failure(f"{key!r} is false", _message_of(value))
    if name in FAILED_KEYS and (item is True or item == "true"):
        return Failure(f"{key!r} is true", _message_of(value))
    return None


def _not_done(value: dict[str, Any], key: str, item: Any, label: str) -> Failure | None:
    """A small object with ``"published": false`` and a reason, of a tool that acts."""
    if item is not False or not key.lower().endswith(_DONE) or reads(label):
        return None
    reason = _message_of(value) or next(
        (
            other
            for name, other in value.items()
            if isinstance(other, str) and name.lower().endswith(("reason", "code", "cause"))
        ),
        "",
    )
    return Failure(f"{key!r} is false", reason) if reason else None


def _by_status(
    value: dict[str, Any], key: str, item: Any, contents: Contents, label: str
) -> Failure | None:
    """A failure that a field with a status or a code states."""
    name = key.lower()
    if name in STATUS_KEYS and isinstance(item, str) and _is_bad_status(item, label):
        return Failure(f"{key!r} is {item!r}", _message_of(value))
    if name in CODE_KEYS and isinstance(item, str) and item.lower() in BAD_STATUS:
        return Failure(f"{key!r} is {item!r}", _message_of(value))
    if (
        name == "detail"
        and isinstance(item, list)
        and item
        and isinstance(item[0], dict)
        and "msg" in item[0]
    ):
        return Failure("it lists what is invalid", _text_of(item))
    if name == "code" and ("stdout" in value or "stderr" in value) and _is_bad_exit(item):
        return Failure(
            f"{key!r} is {item}", _printed_error(value, contents, label) or _streams(value)
        )
    # "code": 404 alone may be an article's number; with a message it is a status.
    if name in CODE_KEYS and _is_bad_code(item) and (name != "code" or _message_of(value)):
        return Failure(f"{key!r} is {item}", _message_of(value))
    if name in _EXIT_KEYS and _is_bad_exit(item):
        return Failure(
            f"{key!r} is {item}",
            _printed_error(value, contents, label) or _message_of(value) or _streams(value),
        )
    return None


def _inside(value: dict[str, Any], contents: Contents, label: str, depth: int) -> Failure | None:
    """What a program printed; one level deeper where the object is a wrapper.

    Or its message, where it holds nothing else.
    """
    is_printed = "stderr" in value or "stdout" in value or not _EXIT_KEYS.isdisjoint(value)
    printed = _printed_error(value, contents, label) if is_printed else ""
    if printed:
        return Failure("what it printed", printed)
    if len(value) > _MOST_IN_WRAPPER:
        return None
    for key in INNER_KEYS if len(value) > 1 else value:
        inner = value.get(key)
        if isinstance(inner, list) and len(inner) == 1 and key in INNER_KEYS:
            inner = inner[0]
        if isinstance(inner, dict) and depth < 2:
            # of what stands under any other name only the fields count, not its words: it may be a
            # record
            found = _in_object(
                inner, contents, label, depth + (1 if key in INNER_KEYS else _MOST_IN_WRAPPER)
            )
            if found is not None:
                return found
    if reads(label) and any(isinstance(item, bool) for item in value.values()):
        return None  # a check whose answer is no, and why
    message = _message_of(value, _MOST_IN_WRAPPER)
    if not message or len(message) > MAX_SENTENCE or depth >= _MOST_IN_WRAPPER:
        return None
    if "message" in value or "detail" in value or "msg" in value or value.get("type") == "text":
        return failure_in_text(message, contents, label)
    if begins_as_error(message) or SENTENCE_START.match(message):
        return Failure("a failure in its message", message)
    return None


def _printed_error(value: dict[str, Any], contents: Contents, label: str) -> str:
    """The error among what a program printed; empty where there is none."""
    for key in _PRINTED_KEYS:
        text = value.get(key)
        if isinstance(text, str) and text:
            found = _by_form(text, contents, label, len(text) <= MAX_SENTENCE)
            if found is not None:
                return found.message
    return ""


def _streams(value: dict[str, Any]) -> str:
    """What a program wrote to its error stream, else to its output."""
    return next(
        (text for key in ("stderr", "stdout") if isinstance(text := value.get(key), str) and text),
        "",
    )


def _part_failed(value: dict[str, Any], item: Any) -> bool:
    """Whether some parts failed, given together with the number of all parts or of good ones."""
    number = _number(item)
    return bool(number) and any(
        key.lower() in DONE_COUNTS and _number(other) is not None for key, other in value.items()
    )


def _states_error(item: Any) -> bool:
    if isinstance(item, str):
        return item.strip().lower() not in NO_ERROR
    return bool(item) and not (isinstance(item, float | int) and item is not True and item == 0)


def _is_bad_status(item: str, label: str) -> bool:
    """A refusal counts of a tool that acts; of one that reads it is the state of what it read."""
    status = item.lower()
    return (
        status in BAD_STATUS
        or HTTP_STATUS.match(item) is not None
        or (status in REFUSED_STATUS and not reads(label))
    )


def _is_bad_code(item: Any) -> bool:
    code = _number(item)
    return code is not None and 400 <= code < 600


def _is_bad_exit(item: Any) -> bool:
    return _number(item) not in (None, 0)


def _number(item: Any) -> int | None:
    """A small whole number, as such or in ASCII digits."""
    if isinstance(item, str) and len(item) <= 5 and item.isascii() and item.isdecimal():
        return int(item)
    # True is an int in Python, and no exit code.
    return item if isinstance(item, int) and not isinstance(item, bool) else None


def _message_of(value: dict[str, Any], depth: int = 0) -> str:
    """An object's own message.

    Under a usual name, a name that ends like one, or one level deeper.
    """
    for key in MESSAGE_KEYS:
        item = value.get(key)
        if isinstance(item, str) and item:
            return item
    if depth == 0 and value.get("is_error", value.get("isError")) is True:
        content = value.get("content")
        if isinstance(content, str) and content:
            return content
    for key, item in value.items():
        if isinstance(item, str) and item and is_error_key(key.lower()):
            return item
    for key, item in value.items():
        if isinstance(item, str) and " " in item and MESSAGE_LIKE.search(key):
            return item
    for item in list(value.values())[:MAX_STATUS_KEYS] if depth < _MOST_IN_WRAPPER else ():
        inner = item[0] if isinstance(item, list) and item else item
        if isinstance(inner, dict) and (reported := _message_of(inner, depth + 1)):
            return reported
    return ""


def _text_of(item: Any) -> str:
    for _ in range(3):
        if isinstance(item, str):
            return item
        if isinstance(item, dict):
            return _message_of(item)
        if not isinstance(item, list) or not item:
            return ""
        item = item[0]
    return ""


def failure_in_text(output: str, contents: Contents, label: str) -> Failure | None:
    """The same for an output that is text."""
    if is_error_value(output):
        return Failure("an error value", output)
    found = _failure_in_text(output, contents, label)
    # A table or a good ending after a traceback does not undo it.
    if found is None or found.sign == TRACEBACK:
        return found
    return None if is_table(output) or ends_well(output) else found


def _failure_in_text(output: str, contents: Contents, label: str) -> Failure | None:
    is_sentence = len(output) <= MAX_SENTENCE and output.count("\n") <= 5
    found = _by_form(output, contents, label, is_sentence)
    if found is not None:
        return found
    if transforms(label):
        return (
            Failure("it was not done", output) if untransformed(output, contents, label) else None
        )
    if is_sentence:
        if _searches(label) and ASK_AGAIN.found_in(output) and NOTHING_FOUND.found_in(output):
            return Failure("it found nothing and wants to be asked otherwise", output)
        if _is_answer(output, contents, label) or not failing_sentence(output, contents, label):
            return None
        found = Failure("a sentence that reports a failure", output)
    else:
        found = _in_first_line(output, contents, label)
    return None if found is not None and reports_success(label, output) else found


def _is_answer(output: str, contents: Contents, label: str) -> bool:
    """Nothing found is what a search may answer.

    A look-up by a key that finds nothing was given a wrong key.
    """
    if not _searches(label) or not NOTHING_FOUND.found_in(output):
        return False
    given = contents.arguments
    return given is None or any(SEARCHED_BY.search(name) for name in given)


def _by_form(
    output: str, contents: Contents, label: str, is_sentence: bool, *, form_only: bool = False
) -> Failure | None:
    start = output[:_START]
    if shows_something(contents) or (
        shows_log(label) and ("\n" in output or output.startswith("["))
    ):
        stated = shell_error(output) or program_error(output, contents)
        return Failure("a line of an error", stated) if stated else None
    if output.startswith("<") and (tagged := _TAGGED.match(output)):
        return Failure("it is marked as an error", tagged[1])
    if output.startswith("<") and (xml := _XML.match(output[:600])):
        return Failure("an error as XML", _TAGS.sub(" ", output[xml.start(1) : 600]).strip())
    if is_command(contents) and (stated := program_error(output, contents)):
        return Failure("a line of an error", stated)
    begins = begins_as_error(start) and (is_sentence or _has_colon_first(start))
    if (begins and not is_document(output)) or SEVERITY.match(start):
        return Failure("it begins like an error", _reported_failure(output))
    runs = not form_only and runs_program(contents, label)
    trace = traceback_error(output, anywhere=runs or form_only) or (
        runtime_error(output) if runs or form_only else ""
    )
    if trace:
        return Failure(TRACEBACK, trace)
    line = failed_at_the_ends(output, runs=runs)
    return Failure("a line of an error", _with_next(line, output)) if line else None


def _with_next(line: str, output: str) -> str:
    """A line that ends with a colon is continued in the next one."""
    if not line.endswith(":"):
        return line
    rest = output.partition(line)[2].lstrip()[:_START].partition("\n")[0]
    return f"{line} {rest}".rstrip()


def _reported_failure(output: str) -> str:
    """The line with the error.

    After a traceback its exception, else the first line with words in it.
    """
    return traceback_error(output, anywhere=True) or next(
        (line for line in output[:2_000].split("\n") if any(map(str.isalnum, line))), ""
    )


def _has_colon_first(start: str) -> bool:
    """A long text is an error's when its first line names it: contents rarely begin so."""
    return ":" in start.partition("\n")[0][:80]


def _in_first_line(output: str, contents: Contents, label: str) -> Failure | None:
    """A longer output of a tool that acts, whose first line reports that it did not act."""
    if reads(label) or _searches(label) or is_command(contents):
        return None
    lines = [line.strip() for line in output[:1_000].split("\n") if line.strip()]
    line = next(iter(lines), "")
    for later in lines[1:3]:
        if later.endswith((".", ":")) and (NOT_DONE.found_in(later) or NOT_ABLE.found_in(later)):
            line = later
            break
    if not 8 <= len(line) <= _MAX_FIRST or " " not in line or NOTHING_WRONG.found_in(line):
        return None
    if (
        SENTENCE_START.match(line)
        or NOT_DONE.found_in(line)
        or (NOT_ABLE.found_in(line) and is_writing(label))
        or (PLAIN_FAILING.found_in(line) and not has_free_text(contents))
    ):
        return Failure("a failure in its first line", line)
    return None


@lru_cache(4_096)
def _searches(label: str) -> bool:
    return SEARCHING.search(label) is not None


def sounds_successful(contents: Contents) -> bool:
    """Whether a sentence reports a success."""
    return not SUCCEEDING.isdisjoint(contents.output_words)


def is_bare_sentence(contents: Contents) -> bool:
    """Whether the output is a line of words, not data.

    A tool that else returns objects or lists returns such a line when it fails.
    """
    output = contents.output
    return (
        8 <= len(output) <= MAX_SENTENCE
        and output.count(" ") >= 2
        and "\n" not in output
        and json_of(output) is None
    )
