"""The keys, openings and words by which outputs tell of failures: those of common protocols and tools, not of any data set."""

from __future__ import annotations

import re
from typing import Final

ERROR_KEYS: Final = frozenset(
    ["error", "errors", "err", "exception", "error_message", "errormessage", "errormsg", "error_msg", "fault", "traceback"]
)
SUCCESS_KEYS: Final = frozenset(["success", "succeeded", "ok", "is_success", "issuccess", "successful"])
FAILED_KEYS: Final = frozenset(["iserror", "is_error", "haserror", "has_error", "failed", "failure"])
STATUS_KEYS: Final = frozenset(["status", "state", "outcome", "result", "type", "level"])
CODE_KEYS: Final = frozenset(
    ["status", "statuscode", "status_code", "code", "http_status", "httpstatus", "http_code", "error_code"]
)
MESSAGE_KEYS: Final = ("message", "detail", "details", "error_description", "reason", "description", "msg", "title", "text")
INNER_KEYS: Final = ("result", "response", "data", "output", "body", "content")
BAD_STATUS: Final = frozenset(["error", "err", "fail", "failed", "failure", "fatal", "exception", "not_ok", "nok", "ko"])
NO_ERROR: Final = frozenset({"", "none", "null", "no", "ok", "0", "false", "nil", "n/a", "no error", "no errors", "success"})

# Error: ..., Tool call failed - ..., ValueError(...), java.io.IOException, error while ..., HTTP/1.1 404 Not Found, status 503
CERTAIN_START: Final = re.compile(
    r"""[\W_]{0,8}(?:
        (?:\w+[ ]){0,3}?(?:error|exception|failure|fault|failed|fatal|panic)\b[^\w\s]{0,2}[:\-!\u2014]
      | (?:\w+\.)*[A-Z]\w*(?-i:Error|Exception|Timeout|Fault)\b(?:[:(\[\s]|$)
      | (?:error|exception|failure)\s+(?:\w+\s+){0,3}?(?:while|when|in|at|during|executing|calling|code|\d)
      | (?:http(?:/\d(?:\.\d)?)?\s*)?[45]\d\d\s+
        (?:client|server|bad|un|for|not|method|request|conflict|gone|too|internal|service|gateway|error)
      | (?:http\s+)?(?:error|status)(?:\s+code)?\s*[:=]?\s*[45]\d\d\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
SENTENCE_START: Final = re.compile(
    r"""[\W_]{0,8}(?:
        failed | failure | unable | could\s?n[o'\u2019]t | could\ not | can(?:no|'|\u2019)t | can\ not | no\ such
      | invalid | unknown | insufficient | unauthori[sz]ed | forbidden | rejected | denied | refused | problem
      | (?:access|permission|request|call|operation|action|transaction|payment|query|command)\s+
        (?:was\s+|is\s+|has\s+been\s+)?
        (?:denied|failed|rejected|refused|declined|aborted|blocked|invalid|not\b|unsuccessful|could\b|can(?:no|')t)
      | not\s+(?:found|allowed|permitted|authori[sz]ed|supported|implemented|available|possible)
      | time[d]?\s?-?out | something\s+went\s+wrong | (?:we(?:'re|\ are)\s+)?sorry | unfortunately
      | bad\s+request | internal\s+(?:server\s+)?error | rate\s+limit | quota
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
AT_THE_ENDS: Final = (
    "Traceback (most recent call last)",
    "command not found",
    "No such file or directory",
    "returned non-zero exit status",
    "Segmentation fault",
    "(execution failed)",
)
EXIT_CODE: Final = re.compile(r"exit\s?(?:code|status)\s*[:=]?\s*[1-9]", re.IGNORECASE)
TITLE: Final = re.compile(r"<title>\s*(?:[45]\d\d\b|[^<]{0,20}(?:not found|forbidden|denied|error))", re.IGNORECASE)

FAILING: Final = frozenset(
    b"""abort aborted bad blocked cannot cant conflict conflicting couldnt crash crashed declined denied deny disabled
    disallowed doesnt error errors exceed exceeded exceeding exceeds exception expired fail failed failing fails failure
    failures fault fatal forbidden illegal impossible inaccessible incompatible incomplete inconsistent incorrect
    ineligible insufficient invalid lacks limit locked malformed mismatch mismatched missing nonexistent not overloaded
    problem prohibited refused reject rejected rejects restricted short sold timeout unable unacceptable unauthorised
    unauthorized unavailable undefined unexpected unknown unmatched unprocessable unreachable unrecognised unrecognized
    unresolved unsuccessful unsupported violates violation without wrong apologies broken corrupt corrupted deficit
    depleted differ differs discrepancy exhausted faulty halted inactive inadequate inapplicable interrupted lack lacking
    mistake mistaken oops regret regrettably revoked shortage shortfall sorry suspended undeliverable unfortunately unmet
    unprocessed unreadable unresponsive unsuitable unverified voided""".split()
)
SUCCEEDING: Final = frozenset(
    b"""accepted added applied approved booked cancelled canceled changed completed confirmed created deleted done finished
    forwarded granted moved ok okay placed processed received recorded refunded registered removed reserved resolved saved
    scheduled sent set started stored submitted succeeded success successful successfully transferred updated uploaded
    written""".split()
)
SURELY: Final = frozenset(b"cannot error exception failed failure fails invalid not rejected unable denied refused".split())
NOTHING_WRONG: Final = re.compile(
    r"\b(?:no|0|zero|without(?: any)?|not any)\s+(?:\w+\s+)?"
    r"(?:errors?|problems?|issues?|failures?|conflicts?|violations?|warnings?)\b",
    re.IGNORECASE,
)
WRONG_SIGNS: Final = ("error", "problem", "issue", "failure", "conflict", "violation", "warning")
NEGATED: Final = re.compile(
    r"n['\u2019]t\b|\bnon-\w+ \w+ can\b|\bno (?:such|more|longer|permission|access|rights)\b|"
    r"\bonly\b[^.]{0,60}\b(?:can|may|allowed|accepted|supported|permitted|eligible)\b|"
    r"\bexpected\b.{0,60}\b(?:got|found|but|received|was)\b|"
    r"\btoo (?:few|little|low|many|much|high|long|short|large|small|late|early|big)\b",
    re.IGNORECASE,
)
NEGATED_SIGNS: Final = ("n't", "n\u2019t", "non-", "no ", "only", "expected", "too ")
# What is asked of the caller; good news ask for something too, so it counts only where nothing was done.
DEMANDING: Final = re.compile(
    r"\b(?:must|should|has to|have to|needs? to|ought to)\s+"
    r"(?:be|not|have|match|contain|equal|start|end|include|differ|exceed)\b|"
    r"\b(?:is|are) required\b|\balready (?:been|exists?|in use|taken|used)\b|\bbut (?:got|paid|was|is|found|only)\b",
    re.IGNORECASE,
)
SEARCHED_BY: Final = re.compile(
    r"quer|search|pattern|text|keyword|term|string|question|regex|^q$|prompt|topic|phrase", re.IGNORECASE
)
LOOKING: Final = re.compile(r"search|find|grep|look|list|query|retriev|browse|scan|exists|check|count", re.IGNORECASE)
NOTHING_FOUND: Final = re.compile(
    r"\b(?:not|n't|no|nothing|none|zero|0)\b[^.\n]{0,60}"
    r"\b(?:found|match\w*|results?|hits?|exist\w*|occurrences?|entries|records?|items?|data)\b",
    re.IGNORECASE,
)
FOUND_SIGNS: Final = ("found", "match", "result", "hit", "exist", "occurrence", "entr", "record", "item", "data")
NO_RESULTS: Final = re.compile(
    r"\b(?:no|zero|0)\s+(?:\w+\s+){0,3}(?:results?|match\w*|hits?|documents?|records?|entries)\b|\bnothing\s+(?:was\s+)?found\b",
    re.IGNORECASE,
)
