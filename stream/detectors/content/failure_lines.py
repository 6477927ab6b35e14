"""Lines in which programs, tools and pages report a failure, and where such a line counts.

Failures are searched where they are usually reported: in the first lines, past a preamble, and its
last ones. A traceback counts anywhere in what a program printed, elsewhere only at the ends: a page
or a file may show one.
"""

from __future__ import annotations

import re
from typing import Final

_FIRST: Final = 8
_FIRST_SHOWN: Final = 5
_LAST: Final = 14
_MAX_LINE: Final = 240
_MAX_SHOWN: Final = 160
_TRACEBACK: Final = "Traceback (most recent call last)"
_MAX_TRACE_LINES: Final = 200

# The C library's messages for errno, as programs print them after a colon.
_ERRNO: Final = (
    r"permission denied|no such file or directory|no such process|command not found|is a directory|"
    r"not a directory|file exists|"
    r"operation not permitted|connection (?:refused|reset|timed out|aborted)|no space left on "
    r"device|read-only file system|"
    r"argument list too long|device or resource busy|too many open files|broken pipe|input/output "
    r"error|text file busy|"
    r"cannot allocate memory|name or service not known|network is unreachable|host is unreachable|"
    r"bad file descriptor|"
    r"directory not empty|file name too long|invalid (?:option|argument|cross-device link)\b.*|"
    r"unrecognized option\b.*|"
    r"unknown option\b.*|illegal option\b.*|(?:event )?not found|no match(?:es found)?|syntax "
    r"error\b.*|missing operand\b.*|"
    r"missing (?:destination )?file operand\b.*|cannot \w+\b.*|could not \w+\b.*|unable to \w+\b.*|"
    r"failed to \w+\b.*"
)
SHELL_LINE: Final = re.compile(
    rf"[\w./+@~-]{{1,60}}(?: line \d+)?\s?:\s{{1,3}}(?:\(\d+\) )?(?:[^\n]{{1,160}}: "
    rf")?(?:\[Errno \d+\] )?(?:{_ERRNO})[.!]?(?: *\([^)]*\))?[.]?$",
    re.IGNORECASE,
)
_ERROR_LINE: Final = re.compile(
    r"""[\W_]{0,8}(?:
        (?:[\w./-]{1,60}[:\ ]\ ?){0,2}?(?:fatal\ |internal\ |runtime\ |syntax\ |compil\w+\ |build\ |
        execution\ |unhandled\ |uncaught\ )?
        (?:error|exception|fatal|panic|failure)(?:\[\w+\]|\s+[A-Z]{1,4}\d{2,5})?\s?[:!\]]\s*\S
      | (?:\w+\.)*[A-Z]\w*(?-i:Error|Exception|Timeout|Fault)\b(?:[:(\[]|$)
      | (?=[\d:]*[A-Za-z_./\\@-])[\w./\\@-]{1,80}[(:]\d+[,:)\d]*:?\s*(?:-\s*)?
        (?:\w{1,20}\s+)?error\b
      | npm\ (?:ERR!|error)\s | make(?:\[\d+\])?:\ \*\*\* | ld\ returned\ [1-9] | collect2:\ error
      | (?:(?:the|your|code|python)\ ){0,2}(?:build|compilation|tests?|job|deploy\w*|
        install\w*|migration|command|process|script|task|step|run|program|
         execution|request|operation|call|query|upload|download|import|export|validation)\s+
        (?:has\s+|was\s+|is\s+)?(?:failed|aborted|crashed|killed|terminated|rejected|refused|
        denied|unsuccessful)\b(?!\s*[:=]\s*0)
      | (?:command|process|program|script)\ .{0,80}?(?:exited|returned|terminated|
        finished)\ with\ (?:\w+\ ){0,3}?[1-9]\d*
      | exit(?:ed)?[\s_]?(?:with\s)?(?:code|status)\s*[:=]?\s*-?[1-9]
      | .{0,80}returned\ non-zero\ exit\ status
      | (?:permission\ denied|no\ such\ file\ or\ directory|file\ exists|
        (?:directory|folder)\ (?:is\ )?not\ empty|(?:is|not)\ a\ directory|
        operation\ not\ permitted|address\ already\ in\ use|
        no\ space\ left\ on\ device|disk\ quota\ exceeded)(?:\s*[:(!.]|$)
      | segmentation\ fault | bus\ error | killed$ | aborted(?:\ \(core\ dumped\))?$ |
        .{0,60}core\ dumped
      | (?:bash:\ |sh:\ |zsh:\ ).{0,80}(?:not\ found|denied|cannot|no\ such)
      | \(execution\ failed\)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_PRINTED_LINE: Final = re.compile(
    r"""(?!\w{0,40}warn(?:ing)?\b)(?:
        [^\n]{0,200}\((?-i:(?:\w+(?:::|\.))*\w*(?:Error|Exception)|(?:[A-Z]\w+::)+\w+)\)\s*$
      | (?-i:SQLSTATE\[\w+\]) | (?:\w+\\)+(?-i:\w*(?:Exception|Error))\b
      | (?:runtime|compilation|compile|link|presentation)\ error\s*(?:\(|$)
      | [\w.#\ -]{1,40}:\ (?![^\n]{0,80}\b(?:0|no|none|not)\b)[^\n]{0,100}?
        (?<!\bas\ )\b(?:failed|stopped|aborted|crashed|unreachable)\b[^\n]{0,30}$
      | [^\n]{0,120}\b(?:undefined\ reference\ to|unresolved\ external\ symbol)\b
      | (?=[^\n]{0,120}\b(?:test|build|failures|errors|suite|passed|result|task|target)\b)
        [^\n]{0,100}?(?-i:\bFAIL(?:ED|URE|URES)?\b)(?!\s?[:=]\s*0)
      | [\W_]{0,40}[1-9]\d*\ (?:tests?\ )?failed\b
      | (?:an?\ )?(?:error|exception)\ (?:(?:has\ )?occurred|from|in|while|when|at|during|
        executing|loading|reading|opening|
        parsing|connecting)\b
      | [^\n]{0,80}\b(?:\w+\.)+(?-i:[A-Z]\w*(?:Exception|Error))\b(?::|$)
      | caused\ by:\ \S
      | [\w./\\-]{1,80}\.\w{1,8}:\d+:\d+:\ (?!(?:warning|note|info|remark|hint)\b)\S
      | (?-i:---\ FAIL\b|FAIL$|FAIL\t)
      | (?:[\w-]{1,30}\ )?(?:could\ not|couldn't|cannot|can't|was\ unable\ to|unable\ to|
        failed\ to)\ \w
      | (?-i:[A-Z])[^\n:]{0,80}(?<!\bas\ )\b(?:failed|aborted|crashed|errored)(?:[.;!:]|\ after\b|$)
      | curl:\ \([1-9]\d*\)\ \S
      | [^\n]{0,160}\b(?:failed|unreachable|failures|errors)=[1-9]
      | [^\n]{0,80}\b(?:requested\ URL\ returned\ error|max\ retries\ exceeded|address\ already
        \ in\ use|no\ route\ to\ host|operation\ timed\ out|can(?:'|no)t\ (?:install|open|load|
        connect|bind|find|read|write)|unrecognized\ import\ path)\b
      | [\W_]{0,8}no\ (?:\w+\ )?\w+\ found\ (?:when|for|while)\b
      | [^\n]{0,120}\bis\ not\ recognized\ as\b
      | (?-i:(?:ERROR|FATAL)\ [A-Z]\w+\ \w) | [\w./:-]{3,80}:\d+:\ (?-i:ERROR):
      | (?-i:[A-Z])\w+(?:\ \w+){0,3}\ not\ found\b
      | msg\ \d+,\ level\ \d+ | error\ (?:\w+\ ){1,4}?\w+:\ \S
      | (?:invalid|unknown|undefined|unsupported|unexpected|illegal|unrecogni[sz]ed)
        \ (?:\w+\ ){1,3}?
        ['"`\u2018]
      | the\ [^\n]{1,80}\bwas\ (?:refused|rejected|reset|closed|denied|lost)\b
      | (?:you\ have\ an\ error\ in\ your|errors?\ in\ \S)
      | [^\n:=]{0,120},\ (?!(?:0|no|none|zero)\ )[\w\ ]{1,40}\bfailed[.!]?$
      | [\d\-:T.,Z\[\]/\ ]{8,32}(?-i:ERROR|FATAL|CRITICAL)\b
      | (?-i:[A-Z])[^\n:]{0,60}\bfailed\ (?:because|due|with|on|at|in)\b
      | (?=[^\n]{0,120}\b(?:examples?|tests?|passed|specs?|assertions|total)\b)
        [^\n]{0,80}\b[1-9]\d*\ (?:failures?|failed|errors?)\b
      | [\w.@/-]{1,40}\s?:\ (?![^\n]{0,160}\b(?:0|no|none|warning|note)\b)[^\n]{0,160}
        \b(?:denied|invalid|unrecogni[sz]ed|unknown|unterminated|missing|refused|unable|cannot|can't|illegal|
        unsupported|forbidden|
        rejected|mismatch|expired|unexpected|bad|failure|already\ in\ use|exceeded|not\ empty|
        does\ not\ exist|doesn't\ exist)\b
      | the\ [^\n]{1,80}\bis\ invalid: | '[^'\n]{1,60}'\ is\ not\ recognized
      | [^\n]{0,100}\b(?:failed|exited|finished|terminated|returned|
        stopped)\ with\ (?:[\w-]+\ ){0,3}?(?:code|status)?\ ?-?[1-9]
      | [\W_]{0,8}(?:aborted|terminated|killed|stopped|failed|rejected|refused|denied)\s?[:!]\s*\S
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Lines that report a failure if a program printed them, and nothing if a tool shows them."""
_TIMED_OUT: Final = re.compile(
    r"\btime[d]?[\s-]out\b|\btime-?out(?:\s+(?:error|expired|exceeded|reached|while|waiting)\b|"
    r"\s+(?:after|of)\s+\d|[:!])|"
    r"\bdeadline exceeded\b|"
    r"\bexceeded (?:the |its )?(?:\w+ )?(?:time ?limit|timeout|time budget)|\btook too long\b|"
    r"\bexceeded \d+ ?(?:s|ms|sec|seconds|min|minutes)\b|"
    r"\btime limit (?:was )?(?:exceeded|reached)|\b(?:wall[- ]clock|running time) limit\b|"
    r"\bno (?:new )?(?:response|output|answer|data|reply|result)s? "
    r"(?:(?:was |were )?(?:received |returned )?)?(?:within|in|after|for) \d|"
    r"\b(?:did|could|was) not (?:be )?(?:finish\w*|complet\w*|end\w*|respond\w*|return\w*|"
    r"answer\w*|start\w*|reached|load\w*)(?: \w+)? (?:with)?in \d|"
    r"\b(?:was|been) (?:interrupted|killed|terminated|cancel+ed|stopped) after \d",
    re.IGNORECASE,
)
_NOT_TIMED_OUT: Final = re.compile(
    r"\b(?:not|never|no|without|0|if|when|unless|zero|default|set|retry|raise|except|def|class)\b"
    r"[^.]{0,40}\btime",
    re.IGNORECASE,
)
_CODE: Final = (
    r"(?:error\s*[:\-]?\s*\(?[45]\d\d\b|(?:http\s+)?[45]\d\d\s*(?:[-:|(]\s*|\s)(?:error|not\ found|"
    r"forbidden|unauthori[sz]ed|"
    r"bad\ |internal|service|gateway|too\ many|page|gone|client|server|access|method|request)|"
    r"[45]\d\d\s*[.!)]?$)"
)
_PAGE: Final = re.compile(
    rf"""(?!.*\b(?:how|why|what|fix\w*|handl\w*|guide)\b)
        (?:(?:(?:page\s+)?title\s*[:=]\s*|<title>\s*|\#{{1,3}}\s+|<h1>\s*)(?:{_CODE}|
        .{{0,40}}\b(?:not\ found|access\ denied|forbidden|service\ (?:temporarily\ )?unavailable|
        bad\ gateway|
        gateway\ time-?out|internal\ server\ error|site\ can[\u2019'`]?t\ be\ reached|
        problem\ loading\ page|
        attention\ required|just\ a\ moment|are\ you\ (?:a\ )?(?:human|robot)|unauthori[sz]ed|
        page\ unavailable|temporarily\ (?:down|unavailable)|
        under\ maintenance|can(?:'|\u2019)?t\ find\ (?:that|this|the)\ page)\b.{{0,40}}$)
      | {_CODE}
      | (?:title:\ )?[^:\n]{{0,25}}\b(?:page\ not\ found|access\ denied|
        service\ (?:temporarily\ )?unavailable|bad\ gateway|
        internal\ server\ error|site\ can[\u2019'`]?t\ be\ reached|problem\ loading\ page|
        checking\ your\ browser)\b.{{0,15}}$
      | (?:\#\ )?access\ to\ this\ page\ (?:has\ been|is|was)\ denied
      | attention\ required!.{{0,20}}$ | (?:sorry,\ )?you\ have\ been\ blocked\b.{{0,20}}$
      | this\ page\ isn[\u2019']t\ working\b | (?-i:ERR_[A-Z]+(?:_[A-Z]+)+)$
      | checking\ your\ browser\ before\b | verif(?:y|ying)\ (?:that\ )?you\ are\ (?:a\ )?human
      | .{{0,25}}\b(?:our\ systems\ have\ detected\ unusual\ traffic|complete\ the\ captcha)
      | .{{0,40}}\b(?:this|that|the)\ page\ (?:can[\u2019'`]?t|cannot|could\ not)\ be\ (?:found|
        reached|displayed|loaded)\b
      | (?:please\ )?enable\ (?:javascript|cookies)\b.{{0,40}}\bto\ (?:continue|proceed)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
"""The title of a page that is no page but an error: named as one, or as one of the first lines."""
_TITLE: Final = re.compile(
    r"<title>\s*(?:(?:error\s*)?[45]\d\d\b|[^<]{0,20}(?:not found|forbidden|denied|"
    r"error)\b[^<]{0,20}<|(?:bad gateway|"
    r"service unavailable|just a moment|attention required))",
    re.IGNORECASE,
)
_PREAMBLE: Final = re.compile(
    r"[\W_]{0,6}(?:(?:the\s+|program\s+|script\s+|command\s+|code\s+|tool\s+|process\s+|cell\s+|"
    r"console\s+|standard\s+)?"
    r"(?:status|exit\s?code|return\s?code|state|output|outputs?|stdout|stderr|result|results|logs?|"
    r"observation|response|"
    r"execution|returned|print(?:ed)?|last output from code snippet|duration|wall time|time|"
    r"elapsed)\b[^:\n]{0,40}:\s*)",
    re.IGNORECASE,
)
_SIGNS: Final = (
    "error", "except", "fatal", "panic", "fail", "abort", "denied", "not "
    "found", "no such", "refused", "timed", "timeout",
    "time-out", "time "
    "out", "time "
    "limit", "exit", "segment", "kill", "crash", "npm ", "***", "title", "40", "41", "42", "50",
    "gateway", "forbidden", "unauthori", "unavailable", "reached", "moment", "cannot", "could "
    "not", "nable to", "exceed",
    "too "
    "long", "reject", "fault", "invalid", "option", "permitted", "director", "exists", "no "
    "response", "no output",
    "non-zero", "undefined "
    "ref", "unresolved", "unreachable", "terminated", "stopped", "caused "
    "by", "missing", "no answer",
    "no match", "no space", "undefined", "illegal", "unexpected", "unsupported", "unknown",
    "unrecogni",
    "untermin", "level ", "lost", "closed", "reset", "couldn", "can't", "recognized", "is invalid",
    "busy", "too many", "broken pipe", "read-only", "syntax", "checking your",
    "maintenance", "human", "captcha", "unusual traffic", "cookies", "javascript", "be found",
    "be displayed", "did not", "interrupted", "wall clock", "wall-clock", "no data", "no reply",
    "curl: (", "retries", "in use", "no route", "no new", "failed=", "attention req", "blocked",
    "isn't working", "isn\u2019t working", "err_", "errors", "no result",
)  # fmt: skip
"""One of these, in lower case, is in every line that is looked for."""
# Lines that announce or count failures without naming one.
_BANNER: Final = re.compile(
    r"[\W_]*(?:\[\w+\]\s*)?(?:failures?|errors?|failed|fail|build (?:failed|failure)|"
    r"see \S.{0,80}\bfor (?:details|more)|tests? failed|test result: failed)\b[\W_\d]*\.?$|"
    r"see \S.{0,120}\bfor (?:details|more)\b|"
    r"(?:a complete log|full log)\b",
    re.IGNORECASE,
)
# What tools print above an output: "Tool result:", a fence.
_LABEL: Final = re.compile(r"```\w*|[\w ]{1,30}:")
_LISTED: Final = re.compile(r"\w{1,10}: ")
_SEVERE_LINE: Final = re.compile(
    r"^[ \t]{0,8}(?:\[?(?:ERROR|FATAL|CRITICAL)\]?|error|Error|fatal|Fatal error)"
    r"(?:\[[\w.]{1,12}\])?: \S[^\n]{0,240}",
    re.MULTILINE,
)
_EXIT: Final = re.compile(
    r"[\W_]{0,8}(?:exit(?:ed)?[\s_]?(?:with\s)?(?:code|status)|.{0,80}(?:exited|returned|finished) "
    r"with)",
    re.IGNORECASE,
)


def error_line(line: str, *, printed: bool = False) -> bool:
    """Whether a line reports a failure of a program or a tool.

    ``printed`` by a program, not shown by a tool.
    """
    return bool(
        (printed and _PRINTED_LINE.match(line))
        or _ERROR_LINE.match(line)
        or SHELL_LINE.match(line)
        or (len(line) <= 200 and _TIMED_OUT.search(line) and not _NOT_TIMED_OUT.search(line))
    )


def shell_error(text: str) -> str:
    """The first or last line, if a command that shows something reports in it that it could not.

    Else empty.
    """
    for line in (*_lines(text[:500], 1), *_last_lines(text, 1)):
        if SHELL_LINE.match(line):
            return line
    return ""


def failed_at_the_ends(text: str, *, runs: bool) -> str:
    """The line that reports a failure among the first or the last lines; empty where none does.

    Of what no program printed only the first lines count, and the very last one.
    """
    found = _failed_at_the_ends(text, runs=runs)
    return _own_text(text, found) if found and _EXIT.match(found) else found


def _own_text(text: str, exit_line: str) -> str:
    """A line with more than an exit code: another line of an error, else the last one."""
    lines = [_behind_preamble(line) for line in _lines(text[:1_500]) + _lines(text[-2_500:])]
    lines = [
        line
        for line in lines
        if line
        and not line.isdigit()
        and line != exit_line
        and not _EXIT.match(line)
        and not _BANNER.match(line)
    ]
    is_first = text.lstrip().startswith(exit_line)  # what follows it is then what it was about
    return next(
        (line for line in reversed(lines) if error_line(line, printed=True)),
        lines[-1] if lines and is_first else exit_line,
    )


def _failed_at_the_ends(text: str, *, runs: bool) -> str:
    first = _lines(text[:1_500], _FIRST if runs else _FIRST_SHOWN)
    last = _last_lines(text, _LAST if runs else 1)
    if not runs:  # requested content has long lines; lines that report a failure are short
        first = [line for line in first if len(line) <= _MAX_SHOWN]
        last = [line for line in last if len(line) <= _MAX_SHOWN]
        if text[:1] == "<" and (title := _TITLE.search(text[:1_500])):
            return text[title.start() + 7 : title.end() + 60].partition("<")[0].strip()
    lowered = [line.lower() for line in (*first, *last)]
    examined = "\n".join(lowered)
    signs = [sign for sign in _SIGNS if sign in examined]
    if not signs and not (runs and ": " in examined):
        return _stated_between(text) if runs else ""
    reported = [any(sign in line for sign in signs) or (runs and ": " in line) for line in lowered]
    begins = True
    for number, line in enumerate(first if runs else first[:3]):
        if not reported[number]:
            begins = begins and _LABEL.fullmatch(line) is not None
            continue
        if _is_failure(line, is_first=begins, runs=runs):
            return line
        begins = begins and _LABEL.fullmatch(line) is not None
        rest = _behind_preamble(line)
        if rest and rest is not line and error_line(rest, printed=runs):
            return rest
    if "<title" in examined and (title := _TITLE.search(text[:1_500])):
        return text[title.start() + 7 : title.end() + 60].partition("<")[0].strip()
    for number, line in enumerate(first[:5]):
        if reported[number] and (
            (len(line) <= 160 and _PAGE.match(line)) or "(chrome-error://" in line
        ):
            return line
    candidates = [
        line for line, is_reported in zip(last, reported[len(first) :], strict=True) if is_reported
    ]
    return _last_error(candidates, runs=runs) or (_stated_between(text) if runs else "")


def _last_error(lines: list[str], *, runs: bool) -> str:
    """The last of these lines that reports a failure; rather one that names it than a banner."""
    found = [
        line for line in lines if error_line(line, printed=runs) and (runs or _ends_badly(line))
    ]
    named = [line for line in found if not _BANNER.match(line)]
    return (named or found or [""])[-1]


def _stated_between(text: str) -> str:
    """A line of severity "error" between the first and the last lines of what a program printed."""
    if not any(sign in text for sign in ("rror", "ERROR", "atal", "FATAL", "CRITICAL")):
        return ""
    found = _SEVERE_LINE.search(text)
    return found[0].strip()[:_MAX_LINE] if found else ""


def _is_failure(line: str, *, is_first: bool, runs: bool) -> bool:
    """Of contents only a first line counts that is short: a heading about errors is no error."""
    if not error_line(line, printed=runs) or _BANNER.match(line):
        return False
    return runs or (is_first and (SHELL_LINE.match(line) is not None or len(line) <= 160))


def _ends_badly(line: str) -> bool:
    return SHELL_LINE.match(line) is not None or (
        _TIMED_OUT.search(line) is not None
        and len(line) <= 120
        and _LISTED.match(line) is None  # a line of a list of errors
    )


def _behind_preamble(line: str) -> str:
    """What follows the labels that tools put before what a program printed."""
    # Labels are nested, as in "Observation: Output: stdout: ..."; the number bounds the time.
    for _ in range(3):
        found = _PREAMBLE.match(line)
        if found is None:
            break
        line = line[found.end() :]
    return line


def _lines(text: str, most: int = 200) -> list[str]:
    """The first lines of a text that are not blank, each cut."""
    # Four times as many, because blank lines between them do not count.
    lines = (line.strip()[:_MAX_LINE] for line in text.split("\n", 4 * most)[: 4 * most])
    return [line for line in lines if line][:most]


def _last_lines(text: str, most: int) -> list[str]:
    """The last lines of a text that has more than one."""
    parts = text[-2_500:].rstrip().rsplit("\n", most)
    kept = parts[-most:] if len(parts) > 1 or len(text) > 2_500 else []
    return [line.strip()[:_MAX_LINE] for line in kept if line.strip()]


def traceback_error(text: str, *, anywhere: bool) -> str:
    """The exception that ends a traceback; empty where there is none.

    A chain of exceptions ends with the one that counts.
    """
    at = text.rfind(_TRACEBACK)
    if at < 0 or not (anywhere or _is_at_an_end(text, at)):
        return ""
    reported = ""
    lines = text[at:].split("\n", _MAX_TRACE_LINES)
    for line in lines[1:_MAX_TRACE_LINES]:
        if line[:1].strip() and not line.startswith(
            ("During handling", "The above exception", "Traceback", "Cell In", "File ", "---->")
        ):
            reported = line.strip()
            break
    return (reported or next((line.strip() for line in reversed(lines) if line.strip()), ""))[
        :_MAX_LINE
    ]


def _is_at_an_end(text: str, at: int) -> bool:
    """Whether a traceback begins a text, or nothing but a few lines follows its exception."""
    return at <= 200 or (len(text) - at <= 1_500 and text[at:].count("\n\n") <= 1)
