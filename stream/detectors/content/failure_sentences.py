"""Whether a message of a sentence or two reports that the call failed.

What counts depends on what the tool is for. A refusal, or a request that cannot be carried out as
it was made, is a failure of any tool. That something was not done, or is limited, closed or taken,
is a failure of a tool that acts, and the state of what it read for a tool that reads.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from stepstream.stream.detectors.aftermath import is_writing
from stepstream.stream.detectors.content.failure_forms import is_log, without_quotations
from stepstream.stream.detectors.content.failure_languages import in_another_language
from stepstream.stream.detectors.content.failure_lines import error_line
from stepstream.stream.detectors.content.failure_words import (
    DEMANDING,
    FAILING,
    NEGATED,
    NOT_ABLE,
    NOT_DONE,
    NOTHING_WRONG,
    READING,
    SENTENCE_START,
    SUCCEEDING,
    SURELY,
    SURELY_READING,
)
from stepstream.stream.detectors.content.given import (
    has_free_text,
    is_command,
    runs_program,
    shows_log,
    shows_something,
    views,
)
from stepstream.stream.detectors.content.signs import SignedPattern
from stepstream.stream.run.contents import Contents, words_in_order

UNABLE: Final = re.compile(
    r"(?:sorry, )?(?:(?:i|we) )?(?:could not|couldn['\u2019]t|was unable to|were unable to|"
    r"unable to|failed to|cannot) (?:retrieve|fetch|load|open|read|parse|connect|access|find|get|"
    r"reach|process|download|extract|resolve|complete)\b",
    re.IGNORECASE,
)
"""How a tool begins its message, and texts rarely do."""
_MOST_ABOUT_A_PAGE: Final = 160
# Longer answers of a tool that reads are what it read, whatever words they contain.
_MOST_OF_READING: Final = 240
# A shorter first sentence ("Sorry.") is not the message yet.
_WHOLE_SENTENCE: Final = 16
_RENDERING: Final = re.compile(r"(?:translat|transcri|ocr|extract|wiki)", re.IGNORECASE)
_CONDITIONS: Final = ("If ", "When ", "Unless ", "Where ", "Whenever ")
# It begins with a class of characters, for which the search is ten times faster than for what may
# stand before them.
_END_OF_SENTENCE: Final = re.compile(r"[.!?;](?<=\w[.!?;])(?=\s+[A-Z])")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
# "may fail if the address is unknown", "3 failed payments": possible failures, and counted ones.
_NOT_STATED: Final = SignedPattern(
    r"\b(?:if|unless|in case|whenever)\b[^.;]*|\b(?:may|might)\b[^.;,]*|"
    r"\b\d+ (?:\w+ )?(?:failed|failing|invalid|rejected|blocked|denied|declined|expired|missing|"
    r"wrong|broken|unknown|errors?|failures?|problems?) \w+(?: \w+){0,3}",
    re.IGNORECASE,
)
# Names of tools whose outputs people wrote: they speak of failures of their own.
_WRITTEN: Final = re.compile(
    r"(?:^|[_\W\d])(?:tickets?|issues?|e?mails?|messages?|inbox|notes?|comments?|reviews?|faqs?|"
    r"posts?|threads?|feedback|transcripts?|conversations?|chats?|polic(?:y|ies)|articles?|"
    r"documents?|docs?|wiki\w*|pages?|news|chapters?|books?)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_TO_A_PERSON: Final = re.compile(
    r"(?:^|[_\W\d])(?:ask|agents?|experts?|chat|humans?|users?|questions?|delegate|consult|"
    r"assistants?)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_ACTING: Final = re.compile(
    r"(?:^|[_\W\d])(?:redeem|activate|deactivate|enable|disable|unlock|lock|start|stop|restart|"
    r"reset|trigger|turn|call|dial|invite|join|leave|enrol+|claim|renew|extend|pause|resume|block|"
    r"unblock|withdraw|deposit|rent|upgrade|downgrade|link|unlink|share|download|import|export|"
    r"sync|rename|archive|restore|drop|click|type|press|select|drag|scroll|navigate|goto|fill|tap|"
    r"set|reschedule|launch|switch|attach|detach|mount|allocate|rotate|convert|pick)(?:$|[_\W\d])",
    re.IGNORECASE,
)
_LIMITED: Final = SignedPattern(
    r"""\bonly\b | \b(?:at\ least|at\ most|no\ more\ than|no\ less\ than|not\ more\ than)\b
      | \b(?:maximum|minimum|max|min)\b | \bfirst\s*[.!]*$
      | \b(?:need|needs|require|requires|must|should|has\ to|have\ to)\b
      | \b(?:is|are|was|were|has\ been|have\ been)\ (?:\w+\ )?
        (?:taken|occupied|in\ use|closed|full|offline|down|busy|locked|frozen|reserved|registered|
        archived|paused|pending|overdue|read-only|protected|owned|empty|too\ \w+|over|above|below|
        referenced|ignored|in\ maintenance|disconnected|unreachable|unavailable|
        disabled|deactivated|switched\ off|stuck)\b
      | \b(?:out\ of|short\ of|past|beyond|outside|above|below|over|exceeds?|exceeded)\ \w+
      | \b(?:has|have)\ (?:none|left|no|not|nothing|already|too)\b | \balready\b | \bno\ longer\b
      | \b(?:do|does|did|is|are|was|were|has|have|had|can|could|will|would|may|must)(?:\ not\b|
        n['\u2019]t\b) | \bcannot\b
      | \b(?:is|are|was|were)\ not\ (?:an?\ )?(?:\w+\ )?\w+(?:ed|able|ible|al|id)\b | ^no\ \w+
      | \b(?:none|nothing|nowhere)\b | \binstead\b | \bmissing\b | \breached\b
      | \blapsed\b | \bclosed\b | \bbut\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Limits, conditions and states with which a tool that acts explains why it did not."""
_CONTINUES: Final = re.compile(r"[.!?;]\s+(?!Try|Please|Use|Check|Choose|Give)[A-Z]")
# "Clicked element e1." begins with what was done.
_DID: Final = re.compile(
    r"(?:Successfully )?(?!Fail|Reject|Den|Refus|Declin|Block|Abort|Tim|Expir|Skipp|Unsupp|Unexp|"
    r"Unauthor|Unrecog|Need|Blocked|Interrupt|Terminat|Kill|Exceed|Limit|Disconnect|Crash|Restrict|"
    r"Disallow|Unmatch|Unhandl|Undefin|Malform|Deprecat|Forbidd|Unresolv|Unlimited)(?:[A-Z][a-z]+ed|"
    r"Withdrawn|Taken|Given|Drawn|Begun|Chosen|Sold|Bought|Sent|Got|Paid|Done|Made|Set|"
    r"Built|Wrote|Put|Written)\b(?! (?:not|to)\b)"
)
_NEGATIONS: Final = frozenset(b"not no never nothing cannot already must only before".split())
_WENT_WELL: Final = SignedPattern(
    r"\b(?:is yours|all set|confirmed|welcome|congratulations|here(?:['\u2019]s| is| are)|"
    r"you can now)\b|"
    r"^(?:correct|right|great|success|done|yes)\b",
    re.I,
)
_BUT: Final = SignedPattern(r"\b(?:but|except|failed|skipped|however|could not|errors?)\b", re.I)
_PARTICIPLE: Final = re.compile(r"\b\w{2,}ed\b|\b(?:sent|paid|made|done|set|written|built)\b")
# What the caller is asked to do before it tries again.
_ORDERS: Final = SignedPattern(
    r"(?:^|[.!:;]\s+)(?:please )?(?:try|use|set|read|choose|provide|specify|log in|sign in|wait|"
    r"retry|"
    r"reconnect|transfer|upgrade|contact|select|enter|remove|close|confirm|install|connect|open|"
    r"check|finish|complete|cancel|pay|ask)\b"
    r"(?= (?:an?|the|your|another|it|them|valid|more|less|first|again|at|with|one|different|for|in|"
    r"until|to|\w+ (?:and|before|first|again|after))\b)(?! your (?:mail|e-mail|inbox))",
    re.IGNORECASE,
)
_VALIDATING: Final = re.compile(
    r"(?:^|[_\W])(?:valid|evaluat|grade|judg|assess|score)", re.IGNORECASE
)
_VERDICT: Final = re.compile(r"(?:(?:in|not )valid|incorrect|wrong)\b", re.IGNORECASE)
_RULE: Final = SignedPattern(
    r"\b(?:cannot|can['\u2019]t|can not) be (?!found|retrieved|read|loaded|opened|displayed|shown|"
    r"determined|accessed|reached|parsed|resolved|located|fetched|used|processed)\w+",
    re.IGNORECASE,
)
_UNABLE_AGENT: Final = re.compile(
    r"(?:(?:I|We) (?:was|were|am|are) (?:not able|unable) to|(?:I|We) (?:could not|"
    r"couldn['\u2019]t|cannot|can['\u2019]t) \w+)\b"
)
_ASKING: Final = re.compile(
    r"(?:^|[_\W\d])(?:ask|humans?|users?|persons?|chat|customer)", re.IGNORECASE
)
_IS_NOW: Final = SignedPattern(r"\b(?:is|are) now \w+", re.I)
# States of things, where a name does not show what the tool is for.
_STATE: Final = SignedPattern(
    r"\bno longer (?:sold|made|offered|listed|used)\b|\bexpired on\b", re.I
)
# Beginnings of documents, and definitions.
_OF_A_DOCUMENT: Final = re.compile(
    r"(?:[QA](?=:)|Question|Answer|Note|Root cause|Summary|Example|Subject|Title|From|Cause|"
    r"Abstract|FAQ)\b:|(?:Chapter|Section|Lesson|Step|Part) \d|[^.]{1,60}\b(?:is|are) an? "
    r"[\w ]{0,30}?(?:code|error|status|exception|term|message|response) "
    r"(?:which|that|who|when|where|for|of)\b"
)
_NOT_RUN: Final = re.compile(
    r"^(?:you have an error in your|only \w+(?: \w+){0,3} (?:is|are) (?:allowed|supported|accepted|"
    r"permitted|available)\b|only \w+ of [^.]{1,60} (?:are|is) (?:allowed|supported|accepted)\b|"
    r"unknown (?:command|option|database|column|table|function|keyword)|"
    r"no such \w+|(?:table|column|relation|database|schema|function|object|index) \S+ (?:does not|"
    r"doesn['\u2019]t) exist|(?:this|the) (?:\w+ )?(?:statement|query|command|code|cell|"
    r"operation) (?:is|was|has been) (?:not|rejected|refused|blocked|forbidden)|"
    r"cancel+ing statement due to)",
    re.IGNORECASE,
)
"""Sentences in which what ran a program or a query reports that it did not."""


def failing_sentence(output: str, contents: Contents, label: str) -> bool:
    """Whether an output of a sentence or two reports a failure of the call."""
    if " " not in output:
        is_stated = SENTENCE_START.fullmatch(output.strip(" .!\n")) is not None and not reads(label)
        return is_stated or (not output.isascii() and in_another_language(output))
    if output.startswith(_CONDITIONS) or is_log(output) or is_document(output):
        return False
    if _DID.match(output) and not _BUT.found_in(output) and not NOT_ABLE.found_in(output):
        return False
    if output.startswith("<") and output.rstrip().endswith(">"):
        return False  # a part of a page
    if shows_log(label) and ("\n" in output or output.startswith("[")):
        return False
    return _reports_failure(output, contents, label) and not NOTHING_WRONG.found_in(output)


def untransformed(output: str, contents: Contents, label: str) -> bool:
    """Whether a tool that renders a document in other words reports that it could not.

    Only for a document that was named: a text among the arguments may speak of failures itself.
    """
    return (
        len(output) <= _MOST_ABOUT_A_PAGE
        and "\n" not in output
        and not _CONTINUES.search(output)
        and not any(" " in str(value) for value in (contents.arguments or {"": " "}).values())
        and (
            _NOT_RUN.match(output) is not None
            or (_RENDERING.search(label) is not None and NOT_ABLE.found_in(output))
        )
    )


def _reports_failure(output: str, contents: Contents, label: str) -> bool:
    is_page = (
        "://" in contents.input and "\n" not in output and len(output) <= _MOST_ABOUT_A_PAGE
    )  # a page has more lines
    only_reads = (reads(label) and not is_page) or shows_something(contents) or views(contents)
    # Several lines of a tool that reads are its contents, not its message.
    if only_reads and "\n" in output.strip():
        return UNABLE.match(output) is not None
    first = _first_sentence(output)
    whole, output = output, first if only_reads else output
    if _VALIDATING.search(label) and _VERDICT.match(output):
        return False
    if SENTENCE_START.match(output) or (_UNABLE_AGENT.match(output) and not _ASKING.search(label)):
        return True
    if has_free_text(contents) and not _acts(label) and not error_line(output):
        return False
    # A program reports its failure by the form of a line.
    if is_command(contents) or runs_program(contents, label):
        return _NOT_RUN.match(output) is not None
    lines = output.strip().split("\n")
    if len(lines) > 2 and not _acts(label):
        # Several lines of a tool of unknown purpose: only its first or last one may be a message.
        return any(
            SENTENCE_START.match(line) or NOT_ABLE.found_in(line)
            for line in (lines[0], lines[-1].partition(": ")[2])
        )
    if len(lines) > 2:
        # Of a tool that acts, without the lines of a difference or a listing.
        output = "\n".join(line for line in lines if line[:1].isalpha()) or first
    if only_reads and (
        len(whole) > _MOST_OF_READING or (first != whole and _WRITTEN.search(label) is not None)
    ):
        return False
    own = without_quotations(output)
    first = _first_sentence(own)
    return _states_failure(own, first, contents, label, reading=only_reads)


def _states_failure(
    output: str, first: str, contents: Contents, label: str, *, reading: bool
) -> bool:
    acts = _acts(label)
    if (acts and _IS_NOW.found_in(first)) or (_VALIDATING.search(label) and _VERDICT.match(output)):
        return False
    if in_another_language(output):
        return True
    if _NOT_STATED.may_be_in(output):
        output = _NOT_STATED.pattern.sub(" ", output)
    if reading and _RULE.may_be_in(output):
        # What cannot be cancelled or returned is a rule; what cannot be found is a failure.
        output = _RULE.pattern.sub(" ", output)
    stated = contents.output_words if output is contents.output else words_in_order(output)
    if not (SURELY_READING if reading or not acts else SURELY).isdisjoint(stated):
        return True
    if NOT_ABLE.found_in(output):
        return True
    if reading or (not acts and _STATE.found_in(output)):
        return False
    return _states_what_was_not_done(output, first, stated, acts=acts)


def _states_what_was_not_done(output: str, first: str, stated: list[bytes], *, acts: bool) -> bool:
    if acts and not (_BUT.found_in(output) or NOT_DONE.found_in(first) or "n't" in first):
        # "Order accepted. The soup is sold out": what follows is a remark.
        stated_here = set(words_in_order(first))
        if stated_here & SUCCEEDING and stated_here.isdisjoint(_NEGATIONS):
            return False
    if NEGATED.found_in(output) or NOT_DONE.found_in(output):
        return not _WENT_WELL.found_in(first)
    if acts and _ORDERS.found_in(output) and not _PARTICIPLE.search(first):
        return True
    if not SUCCEEDING.isdisjoint(stated) or _WENT_WELL.found_in(first):
        return False
    stated = words_in_order(first) if len(first) >= _WHOLE_SENTENCE else stated
    if not FAILING.isdisjoint(stated) or DEMANDING.found_in(output):
        return True
    return acts and _LIMITED.found_in(first)


def is_document(text: str) -> bool:
    """Whether a text begins like a part of a document, or defines what it names."""
    return _OF_A_DOCUMENT.match(text) is not None


def _first_sentence(text: str) -> str:
    end = _END_OF_SENTENCE.search(text)
    return text if end is None else text[: end.end()]


@lru_cache(4_096)
def reads(label: str) -> bool:
    """Whether a tool by its name reads something and changes nothing."""
    return READING.search(_CAMEL.sub("_", label)) is not None and not is_writing(label)


@lru_cache(4_096)
def _acts(label: str) -> bool:
    name = _CAMEL.sub("_", label)
    return (is_writing(label) or _ACTING.search(name) is not None) and (
        _TO_A_PERSON.search(name) is None
    )
