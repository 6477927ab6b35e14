"""The keys, openings and words with which outputs report failures.

Those of common protocols and tools.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from stepstream.stream.detectors.content.signs import SignedPattern

ERROR_KEYS: Final = frozenset(
    [
        "error",
        "errors",
        "err",
        "exception",
        "error_message",
        "errormessage",
        "errormsg",
        "error_msg",
        "fault",
        "traceback",
    ]
)
_ERROR_KEY: Final = re.compile(
    r"(?:reject(?:ion|ed)?|decline?d?|denial|refusal)(?:reason|code|message)|"
    r"(?:user|validation|api|request|field)?(?:error|err|failure|fault|exception|problem)s?"
    r"(?:message|messages|msg|reason|reasons|text|cause|type|description|detail|details|string)?"
)
FAILED_COUNTS: Final = frozenset(
    ["failed", "failures", "failure_count", "failed_count", "undelivered", "unsent"]
)
DONE_COUNTS: Final = frozenset(
    [
        "written",
        "passed",
        "delivered",
        "succeeded",
        "sent",
        "imported",
        "processed",
        "total",
        "inserted",
        "updated",
        "uploaded",
    ]
)
"""Together with one of these, a number of failed parts is about this call, not about what it read.
"""
MESSAGE_LIKE: Final = re.compile(
    r"(?:message|msg|reason|description|text|details?|explanation|info|cause|string|why|"
    r"diagnostics?|log|out|body|evalue)s?$",
    re.IGNORECASE,
)
SUCCESS_KEYS: Final = frozenset(
    ["success", "succeeded", "ok", "is_success", "issuccess", "successful"]
)
FAILED_KEYS: Final = frozenset(
    ["iserror", "is_error", "haserror", "has_error", "failed", "failure"]
)
STATUS_KEYS: Final = frozenset(["status", "state", "outcome", "result", "type", "level", "rc"])
CODE_KEYS: Final = frozenset(
    [
        "status",
        "statuscode",
        "status_code",
        "code",
        "http_status",
        "httpstatus",
        "http_code",
        "error_code",
    ]
)
MESSAGE_KEYS: Final = (
    "message",
    "detail",
    "details",
    "error_description",
    "reason",
    "description",
    "msg",
    "title",
    "text",
)
INNER_KEYS: Final = ("result", "response", "data", "output", "body", "content", "meta", "status")
BAD_STATUS: Final = frozenset(
    [
        "error",
        "err",
        "fail",
        "failed",
        "failure",
        "fatal",
        "exception",
        "not_ok",
        "nok",
        "ko",
        "aborted",
        "timeout",
        "timed_out",
        "not_found",
        "invalid_request",
        "invalid_argument",
        "request_denied",
        "over_query_limit",
        "permission_denied",
        "unauthorized",
        "unauthenticated",
        "resource_exhausted",
        "deadline_exceeded",
        "partial_failure",
        "rate_limited",
        "crashed",
    ]
)
REFUSED_STATUS: Final = frozenset(
    ["rejected", "denied", "declined", "refused", "blocked", "invalid"]
)
HTTP_STATUS: Final = re.compile(r"(?:HTTP[/ \d.]{0,5})?[45]\d\d\b(?! *[a-z])")
NO_ERROR: Final = frozenset(
    {"", "none", "null", "no", "ok", "0", "false", "nil", "n/a", "no error", "no errors", "success"}
)

# Error: ..., Tool call failed - ..., ValueError(...), java.io.IOException, error while ...,
# HTTP/1.1 404 Not Found, status 503
_CERTAIN_START: Final = SignedPattern(
    r"""^[\W_]{0,8}(?:
        (?:\w+[ ]){0,3}?(?:error|exception|failure|fault|failed|fatal|
        panic)\b[^\w\s]{0,2}[:\-!\u2014]
      | error\s+\w+ing\b | \d+\ validation\ errors?\ for\b
      | (?:error|exception|failure)\s+(?:\w+\s+){0,3}?(?:while|when|in|at|during|executing|calling|
        code\s*[:=(]?\s*\d|\d)
      | (?:http\s+)?(?:error|status|http|response)(?:\s+(?:code|status))?\s*[:=]?\s*[45]\d\d\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMED_ERROR: Final = re.compile(
    r"[\W_]{0,8}(?:\w+\.)*[A-Z]\w*(?-i:Error|Exception|Timeout|Fault)\b(?:[:(\[{\s]|$)",
    re.IGNORECASE,
)
_NAMED_ERROR_SIGNS: Final = ("Error", "Exception", "Timeout", "Fault")
_HTTP_ERROR: Final = re.compile(
    r"""[\W_]{0,8}(?:http(?:/\d(?:\.\d)?)?\s*)?[45]\d\d\s+
        (?:client|server|bad|un|for|not|method|request|conflict|gone|too|internal|service|gateway|
        error)\w*
        (?!(?:\ \w+)?\ (?:is|means|was)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
SENTENCE_START: Final = re.compile(
    r"""[\W_]{0,8}(?:
        failed | failure(?!\ (?:is|are|was|modes?|rates?)\b) | wrong | incorrect
      | unable | could\s?n[o'\u2019]t | could\ not | can(?:no|'|\u2019)t | can\ not | no\ such
      | invalid | unknown | insufficient | unauthori[sz]ed | forbidden | rejected | denied |
        refused | problem
      | (?:\w+\s+){1,2}required\s*$ | too\s+(?:many|few|large|long|short|late) | illegal
      | (?:your\s+)?(?:session|token|licen[cs]e)\s+(?:has\s+)?expired
      | (?:access|permission|connection|request|call|operation|action|transaction|payment|query|
        command)\s+
        (?:was\s+|is\s+|has\s+been\s+)?
        (?:denied|failed|rejected|refused|declined|aborted|blocked|invalid|reset|lost|closed|not\b|
        unsuccessful|could\b|can(?:no|')t)
      | not\s+(?:found|allowed|permitted|authori[sz]ed|supported|implemented|available|possible)
      | time[d]?\s?-?out | something\s+went\s+wrong | (?:we(?:'re|\ are)\s+)?sorry | unfortunately
      | bad\s+request | internal\s+(?:server\s+)?error | rate\s+limit | quota
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
FAILING: Final = frozenset(
    b"""abort aborted bad blocked cannot cant conflict conflicting couldnt crash crashed declined
    denied deny disabled disallowed doesnt error errors exceed exceeded exceeding exceeds exception
    expired fail failed failing fails failure failures fault fatal forbidden illegal impossible
    inaccessible incompatible incomplete inconsistent incorrect ineligible insufficient invalid
    lacks limit locked malformed mismatch mismatched missing nonexistent overloaded problem
    prohibited refused reject rejected rejects restricted short sold timeout unable unacceptable
    unauthorised unauthorized unavailable undefined unexpected unknown unmatched unprocessable
    unreachable unrecognised unrecognized unresolved unsuccessful unsupported violates violation
    without wrong apologies broken corrupt corrupted deficit depleted differ differs discrepancy
    exhausted faulty halted inactive inadequate inapplicable interrupted lack lacking mistake
    mistaken oops regret regrettably revoked shortage shortfall sorry suspended undeliverable
    unfortunately unmet
    duplicate unprocessed unreadable unresponsive unsuitable unverified voided""".split()
)
SUCCEEDING: Final = frozenset(
    b"""accepted added applied approved booked cancelled canceled changed completed confirmed
    created deleted done finished forwarded granted moved ok okay placed processed received recorded
    refunded registered removed reserved resolved saved scheduled sent set started stored submitted
    succeeded success successful successfully transferred updated uploaded
    written""".split()
)
SURELY: Final = frozenset(b"cannot error exception invalid unable".split())
"""Words that report a failure in a sentence of a tool that does not read."""
SURELY_READING: Final = SURELY - {b"error", b"exception"}
NOT_ABLE: Final = SignedPattern(
    r"(?:\bnot|n['\u2019]t)\s+(?:be\s+|been\s+|yet\s+|currently\s+|properly\s+|a\s+)?(?:found|"
    r"allowed|permitted|authori[sz]ed|supported|"
    r"implemented|valid|recogni[sz]ed|accessible|reachable|parsed|understood|exist|match|loaded|"
    r"read|opened|located|resolved|"
    r"connect\w*|installed|defined|configured|logged in|identified|verified|retrieved|fetched|"
    r"linked|associated|ready|"
    r"processed|performed|executed|completed?)\b|\bis (?:unknown|still being \w+ed)\b|"
    r"\b(?:failed|fails|failure) (?:to|with|while|"
    r"during)\b|"
    r"\b(?:try|retry)(?: again)? (?:in|later|after|again)\b|\bplease (?:sign|log) in\b|\bslow "
    r"down\b|"
    r"\bthis (?:tool|command|function|endpoint|operation)\b[^.]{0,40}\b(?:only|not|cannot)\b|"
    r"\b(?:did not|didn't|does not|doesn't|do not|don't|could not) (?:answer|respond|reply|"
    r"understand|recogni[sz]e|know)\b|\byou have an error in your\b|"
    r"\bnot (?:sent|saved|applied|created|deleted|updated|written|delivered|submitted|uploaded|"
    r"logged in|signed in|in the list|interactable|running|connected|a valid)\b|"
    r"\bno (?:\w+ ){1,3}(?:was |were |is |are |has been )?(?:found|open|selected|loaded|running|"
    r"configured|connected|performed|provided|specified|given)\b|"
    r"\b(?:past|beyond|outside|out of) (?:the |its )?(?:\w+ )?(?:end|range|bounds|limits?)\b|"
    r"\b(?:is|are) (?:currently )?(?:disabled|blocked|unavailable|restricted|locked|closed) "
    r"(?:for|on|in|by) (?:this|your)\b|"
    r"\b(?:max(?:imum)? retries|rate ?limit\w*|quota|allowance|credits?)\b[^.]{0,30}"
    r"\b(?:exceeded|reached|hit|exhausted|used up)|\balready exists\b|\btarget closed\b|"
    r"(?:\b(?:i|we) (?:could|can) ?(?:not|n['\u2019]t)|\bcould(?: not|n['\u2019]t)) (?:find|"
    r"retrieve|fetch|load|open|read|parse|connect|access|locate|resolve|determine|get|reach)\b|"
    r"\bthere (?:is|are|was) no \w+(?: \w+){0,3} (?:with|named|called|having)\b|"
    r"^no \w+(?: \w+){0,2} (?:with|named|called|having) (?:(?:the |this |that )?(?:id|number|name|"
    r"code|key|e-?mail|title)\b|(?:\w+ )?\S*\d)|"
    r"\b(?:closed|lost|reset|dropped) the connection\b|"
    r"\bconnection (?:was )?(?:closed|lost|reset)\b|"
    r"\b(?:internal|unexpected|unknown|system) (?:server )?error\b|\ban error (?:has )?occurred\b|"
    r"\bmust be (?:in range|in the range|between|one of|an? (?:valid|integer|number|string|date|"
    r"positive)|positive|greater|less|numeric)\b|\bis still (?:starting|loading|initiali[sz]ing)\b|"
    r"(?<=[.;,] )failed: \S|\bstale element\b|\b(?:was|been|is) disconnected\b|"
    r"\byou (?:have|are) (?:used up|reached|exceeded|not|trying)\b|"
    r"n['\u2019o]t have (?:the |any )?(?:\w+ )?(?:permission|access|rights|authority)|\bno "
    r"(?:response|answer|reply)\b|"
    r"\bexceed(?:s|ed)\b[^.]{0,30}\b(?:limit|maximum|allowed|size)\b|"
    r"\bunexpected (?:\w+ )?(?:argument|keyword|token|parameter|field|"
    r"input|error|response|end)|\bmissing (?:\d+ )?(?:required|argument|parameter|mandatory)|"
    r"\bexpected\b.{0,60}\b(?:got|found|but|received)\b|\bpermission denied\b",
    re.IGNORECASE,
)
"""What is not possible, not valid, not there: refusals and failures, whatever the tool is for."""
NOT_DONE: Final = SignedPattern(
    r"\b(?:was|were|has|have|had|could|can|is|are|did|does|do|will)(?:\s+not|"
    r"n['\u2019]t)\s+(?:be\s+|been\s+|being\s+)?"
    r"(?:appl\w+|sav\w+|writ\w+|made|updat\w+|creat\w+|execut\w+|run|ran|accept\w*|complet\w+|"
    r"process\w+|sent|install\w*|"
    r"built|build|chang\w+|modif\w+|delet\w+|remov\w+|add(?:ed)?|submit\w*|book\w*|cancel\w*|"
    r"charg\w+|refund\w*|perform\w*|"
    r"carried|placed|record\w*|stor\w+|upload\w*|merg\w+|commit\w*|insert\w*|replac\w+|edit\w*|"
    r"compil\w+|start\w*|load\w*|"
    r"succeed\w*|work\w*|done|taken|happen\w*|go|gone|went|match\w*|appear|used|add up|qualif\w+|"
    r"covered?|belong)\b|"
    r"(?:\bnot|n['\u2019]t)\s+(?:currently\s+|yet\s+|an?\s+)?(?:enough|available|eligible|"
    r"sufficient|\w+[ai]ble|correct|"
    r"consistent|complete|equal|in stock)\b|"
    r"\b(?:no|without) (?:changes?|edits?|modifications?|updates?) (?:was|were|have been|has "
    r"been)?\s*"
    r"(?:made|applied|saved|written|performed)|"
    r"\b(?:has|have|is|was) already (?:been\b|in use|taken|registered|closed|done)|\balready "
    r"exists?\b|"
    r"\bno (?:\w+ ){1,3}(?:left|available|remaining|free)\b|"
    r"\b(?:because of|with|due to) (?:\d+ )?errors\b|"
    r"\bnothing (?:happens|happened|changed)\b|\bbeyond the (?:end|last|limit|range)\b|"
    r"\bout of (?:stock|reach|bounds|range|memory|space|credit)\b|"
    r"\b(?:sold out|fully booked|no longer)\b|"
    r"\bnothing (?:was|has been|could be) (?:changed|applied|saved|written|done|sent|updated|"
    r"modified|edited)|"
    r"\b(?:edit|patch|change|update|request|proposal|hunk|diff|commit|transaction|payment|"
    r"order)s?\b[^.]{0,60}"
    r"\b(?:rejected|refused|discarded|reverted|rolled back|declined|denied|failed|blocked|ignored|"
    r"skipped|aborted)\b",
    re.IGNORECASE,
)
"""A request was not carried out, if the tool acts. If it reads, this is the state of what it read.
"""
PLAIN_FAILING: Final = SignedPattern(
    r"\b(?:failed|fails|rejected|refused|denied|invalid|unable|cannot|aborted|declined|illegal|"
    r"forbidden|(?:syntax|new|an?|the|"
    r"following) errors?\b)|\bintroduced? (?:\w+ ){0,2}errors?",
    re.IGNORECASE,
)
"""Words that report a failure in the first line of a longer output."""
READING: Final = re.compile(
    r"(?:^|[_\W\d])(?:get|read|fetch|track|status|where|show|describe|view|lookup|look|info|"
    r"details?|check|is|has|"
    r"estimate|forecast|ask|question|inquire|weather|news|summar\w*|visit|open|page|inspect|browse|"
    r"search|find|wiki\w*|explain|"
    r"translate|grep|rg|notes?|messages?|e?mails?|inbox|logs?|records?|reports?|comments?|reviews?|"
    r"transcripts?|feedback|"
    r"classif\w*|categor\w*|sentiment|score|rate|extract\w*|detect\w*|analy[sz]e\w*|grade|"
    r"predict\w*|cat|tell|history|memor(?:y|ies)|recall|"
    r"retrieve|query|list|scan|snapshot|valid\w*|verif\w*|eligib\w*|slots|availability|measure|"
    r"sense|compare|diagnos\w*|"
    r"surfer|websurfer|filesurfer)(?:$|[_\W\d])",
    re.IGNORECASE,
)
"""Names of tools that report a state."""
NOTHING_WRONG: Final = SignedPattern(
    r"\b(?:no|0|zero|without(?: any)?|not any)\s+(?:\w+\s+)?"
    r"(?:errors?|problems?|issues?|failures?|conflicts?|violations?|warnings?)\b",
    re.IGNORECASE,
)
NEGATED: Final = SignedPattern(
    r"n['\u2019]t\b|\bnon-\w+ \w+ can\b|\bno (?:such|more|longer|permission|access|rights)\b|"
    r"\bonly\b[^.]{0,60}\b(?:can|may|allowed|accepted|possible|available|open|supported|permitted|"
    r"eligible)\b|"
    r"\bexpected\b.{0,60}\b(?:got|found|but|received|was)\b|"
    r"\btoo (?:few|little|low|many|much|high|long|short|large|small|late|early|big)\b",
    re.IGNORECASE,
)
# What is asked of the caller; good news ask for something too, so it counts only where nothing was
# done.
DEMANDING: Final = SignedPattern(
    r"\b(?:must|should|has to|have to|needs? to|ought to)\s+"
    r"(?:be|not|have|match|contain|equal|start|end|include|differ|exceed)\b|"
    r"\b(?:is|are) (?:an? )?required\b|\balready (?:been|exists?|in use|taken|used)\b|\bbut (?:got|"
    r"paid|was|is|found|only)\b",
    re.IGNORECASE,
)
ASK_AGAIN: Final = SignedPattern(
    r"\b(?:use|try|give|choose|specify|enter) (?:a |an |another |with )?"
    r"(?:less|more|different|other|broader|shorter|valid|narrower)\b",
    re.IGNORECASE,
)
SEARCHED_BY: Final = re.compile(
    r"quer|search|pattern|text|keyword|term|string|symbol|question|regex|^q$|prompt|topic|phrase",
    re.IGNORECASE,
)
SEARCHING: Final = re.compile(
    r"search|find|grep|glob|references|symbols?|look|list|query|retriev|browse|scan|exists|check|"
    r"count",
    re.IGNORECASE,
)
NOTHING_FOUND: Final = SignedPattern(
    r"\b(?:not|n't|no|nothing|none|zero|0)\b[^.\n]{0,60}"
    r"\b(?:found|match\w*|results?|hits?|exist\w*|occurrences?|entries|records?|items?|data)\b",
    re.IGNORECASE,
)
NO_RESULTS: Final = re.compile(
    r"\b(?:no|zero|0)\s+(?:\w+\s+){0,3}(?:results?|match\w*|hits?|documents?|records?|entries)\b|"
    r"\bnothing\s+(?:was\s+)?found\b",
    re.IGNORECASE,
)


@lru_cache(4_096)
def is_error_key(name: str) -> bool:
    """Whether an error stands under this name, in lower case: alone or with what it is of."""
    return (
        name in ERROR_KEYS
        or _ERROR_KEY.fullmatch(name.replace("_", "").replace("-", "")) is not None
    )


def begins_as_error(text: str) -> bool:
    """Whether a text begins like a message of an error."""
    return (
        (_CERTAIN_START.may_be_in(text) and _CERTAIN_START.pattern.match(text) is not None)
        or (
            any(sign in text for sign in _NAMED_ERROR_SIGNS)
            and _NAMED_ERROR.match(text) is not None
        )
        or (("4" in text or "5" in text) and _HTTP_ERROR.match(text) is not None)
    )
