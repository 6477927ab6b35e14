"""What a model's step was: a request for tools, or an answer.

And whether an answer mentions a problem or asks for something.
"""

from __future__ import annotations

import re
from typing import Any, Final

from stepstream.stream.detectors.content.signs import SignedPattern
from stepstream.stream.run.contents import Contents, ends_of
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

_PENDING: Final = "|answers"
"""Under which a run's state holds them: no rule's name has a bar in it."""
SPEAKING: Final = frozenset({"llm_call", "output"})
MAX_ANSWERS: Final = 50
"""Steps of a run whose words are noted; of more the latest."""
CALLED, STATED, ADMITTED, ASKED, CODED = 0, 1, 2, 3, 4
"""It asked for tools; an answer; an answer that mentions a problem; one that asks the user; code of
its own."""
ACTED: Final = frozenset({CALLED, CODED})
"""No answer."""

Answer = list[Any]
"""Start and end of a step, its id, and what it was."""

_LEAST_CODE: Final = 3
"""Lines of code that do something besides handing over an answer."""
_CALL_KEYS: Final = (
    '"tool_calls"',
    '"function"',
    '"tool_use"',
    '"arguments"',
    '"function_call"',
    '"functionCall"',
)
_CALL_WORDS: Final = ("tool", "function", "arguments", "action")
_BEGINNING: Final = 400
"""Characters in which any of these words mentions the problem; later text must do so plainly."""
_PROBLEM: Final = frozenset({
    "unfortunately", "sorry", "apologies", "apologize", "apologise", "regret", "not", "cannot",
    "unable", "issue", "issues", "problem", "problems", "error", "errors", "fail", "failed",
    "fails", "failure", "invalid", "insufficient", "unavailable", "however", "instead", "longer",
    "trouble", "declined", "rejected", "denied", "seems", "problem:", "error:",
    # "not", "sorry", "error", "unfortunately" where agents speak other languages
    "nicht", "kein", "keine", "leider", "fehler", "pas", "d\u00e9sol\u00e9", "malheureusement",
    "erreur", "impossible", "siento", "lamentablemente", "desafortunadamente", "lamento", "non",
    "purtroppo", "errore", "n\u00e3o", "infelizmente", "erro", "niet", "helaas", "fout", "nie",
    "niestety", "\u043d\u0435", "\u043e\u0448\u0438\u0431\u043a\u0430",
})  # fmt: skip
_PROBLEM_ELSEWHERE: Final = (
    "\u62b1\u6b49", "\u65e0\u6cd5", "\u5931\u8d25", "\u9519\u8bef", "\u7533\u3057\u8a33",
    "\u3067\u304d\u307e\u305b\u3093", "\u30a8\u30e9\u30fc", "\uc8c4\uc1a1", "\uc624\ub958",
)  # fmt: skip
"""Where words are not parted by blanks."""
_PLAIN_PROBLEM: Final = SignedPattern(
    r"\b(?:unfortunately|sorry|unable|cannot|failed|failure|unsuccessful\w*|declined|rejected|"
    r"denied|unavailable|error|"
    r"(?:could|can|was|were|did|does|do|is|are|has|have|will|would)(?:\s+not\b|n['\u2019]t\b)|"
    r"not (?:able|possible|available|found|work(?:ed|ing)?)|(?:can|may) only be|"
    r"only (?:possible|available|allowed|permitted) (?:at|by|for|from|in|on|with)|"
    r"(?:an? )?(?:issue|problem|trouble) (?:with|while|when|in)|went wrong|"
    r"(?:fully|completely|all) (?:booked|occupied)|sold out|out of stock|"
    r"(?:is|are|was|were) (?:currently |temporarily )?(?:down|offline|unreachable|closed|full)|"
    r"(?:a|my|our) (?:colleague|supervisor|manager)|(?:human|support) (?:agent|team|staff)|"
    r"escalated)",
)
_ASKING: Final = re.compile(
    r"\b(?:could|can|would) you (?:please )?(?:kindly )?(?:provide|share|confirm|check|tell|give|"
    r"verify|send|try|specify|"
    r"clarify|double|re-?enter|repeat|spell|supply|let me have)|"
    r"please (?:provide|share|confirm|check|tell|give|verify|send|try|specify|clarify|double|"
    r"re-?enter|repeat|spell|supply)|"
    r"(?:what|which) (?:is|are|was) (?:your|the)|may i (?:have|ask|get)|do you (?:have|know|"
    r"remember)|"
    r"(?:which|what|when|where) (?!else\b)[^.?!\n]{0,80}\b(?:did|do|have|are|were) you "
    r"(?!need\b|think\b|feel\b)[^.?!\n]{0,80}\?|"
    r"i (?:will |'ll )?need your|"
    r"would you like to (?:try|use|pay|choose|provide|proceed)|"
    r"(?:do you (?:still )?want|shall i|should i|would you (?:like me to|prefer))"
    r"(?![^?\n]{0,80}\b(?:else|more|further)\b)[^.?!\n]{0,80}\?",
)
_ASKING_SIGNS: Final = (" you", "please", "your", "may i", "shall i", "should i")
_LOWERED: Final = bytes(
    32 if code in b",.\x1c\x1d\x1e\x1f" else bytes([code]).lower()[0] for code in range(256)
)
"""ASCII in lower case, with blanks for what parts words in a text but not in bytes, and for commas
and full stops."""
_PROBLEM_BYTES: Final = frozenset(word.encode() for word in _PROBLEM)


def answers_of(run: Run) -> list[Answer]:
    """The answers of models so far, kept once for all rules."""
    noted: list[Answer] = run.detector_state.setdefault(_PENDING, [])
    return noted


def note_answer(run: Run, step: StepInfo, contents: Contents, *, whole: bool) -> Answer | None:
    """Note what a model's step was; None where it is older than all of the many that are noted.

    ``whole``: all of its words count, as where something failed before; else only its beginning.
    """
    answers = answers_of(run)
    if answers and answers[-1][2] == step.step_id:  # another rule has noted it
        if whole:
            answers[-1][3] = what_it_was(contents, whole=True)
        return answers[-1]
    if len(answers) >= MAX_ANSWERS:
        if step.start_us < answers[0][0]:
            return None
        # The oldest goes: what followed a failure is decided by newer answers.
        answers.sort()
        del answers[0]
    answer = [step.start_us, step.end_us, step.step_id, what_it_was(contents, whole=whole)]
    answers.append(answer)
    return answer


def note_last_word(run: Run, step: StepInfo, contents: Contents) -> Answer | None:
    """Note what a run itself answered, as of its end; None where it answered nothing."""
    answers = answers_of(run)
    if answers and answers[-1][2] == step.step_id:
        return answers[-1]
    was = what_it_was(contents, whole=True)
    if was in ACTED:
        return None
    answer = [step.end_us, step.end_us, step.step_id, was]
    answers.append(answer)
    return answer


def what_it_was(contents: Contents, *, whole: bool) -> int:
    """What a model's step was, by its output: by all of it, or by its beginning alone."""
    noted, name = contents.noted, "was, by all of it" if whole else "was"
    if name not in noted:
        noted[name] = _by_all_of_it(contents) if whole else _by_its_beginning(contents)
    return int(noted[name])


def _by_its_beginning(contents: Contents) -> int:
    if not contents.output or calls_tools(contents):
        return CALLED
    return ADMITTED if _mentions_problem(contents.output[:_BEGINNING]) else STATED


def _by_all_of_it(contents: Contents) -> int:
    if not contents.output or calls_tools(contents):
        return (
            CODED
            if "```" in contents.output and _does_more_than_answer(answer_words(contents))
            else CALLED
        )
    stated = answer_words(contents).lower()
    if _mentions_problem(stated[:_BEGINNING]) or _PLAIN_PROBLEM.found_in(stated):
        return ADMITTED
    return (
        ASKED
        if any(sign in stated for sign in _ASKING_SIGNS) and _ASKING.search(stated)
        else STATED
    )


def _does_more_than_answer(text: str) -> bool:
    """Whether code does something besides handing over an answer."""
    code = text.partition("```")[2].partition("```")[0]
    if code.count("\n") > 4 * _LEAST_CODE:
        return True
    lines = [
        line.strip()
        for line in code.split("\n")[1:]
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return (
        sum("final_answer" not in line and not line.startswith("print(") for line in lines)
        >= _LEAST_CODE
    )


def answer_words(contents: Contents) -> str:
    """The text of a model's step, taken out of the message that interfaces wrap around it."""
    if contents.output[:1] not in ("{", "[", '"') or not any(
        key in ends_of(contents.output) for key in _WRAPPING
    ):
        return contents.output
    parts: list[str] = []
    _collect(contents.taken, parts, 0)
    return "\n".join(parts) if parts else contents.output


_WRAPPING: Final = ('"content"', '"text"', '"message"', '"answer"', '"response"')
_MESSAGE_KEYS: Final = (
    "content",
    "text",
    "message",
    "choices",
    "output",
    "parts",
    "messages",
    "answer",
    "response",
)


def _collect(value: Any, parts: list[str], depth: int) -> None:
    """The texts under the keys in which messages hold their words."""
    if isinstance(value, str):
        parts.append(value)
    elif depth < 5 and isinstance(value, list):
        # Messages are nested without a limit: width and depth bound the time.
        for item in value[:20]:
            _collect(item, parts, depth + 1)
    elif depth < 5 and isinstance(value, dict):
        for key in _MESSAGE_KEYS:
            if key in value:
                _collect(value[key], parts, depth + 1)


def _mentions_problem(beginning: str) -> bool:
    # The usual case, and faster as bytes: every answer of every model passes here.
    if beginning.isascii():
        data = beginning.encode().translate(_LOWERED)
        return b"n't" in data or not _PROBLEM_BYTES.isdisjoint(data.split())
    lowered = beginning.lower().replace("\u2019", "'")
    if any(sign in lowered for sign in _PROBLEM_ELSEWHERE):
        return True
    return "n't" in lowered or not _PROBLEM.isdisjoint(
        lowered.replace(",", " ").replace(".", " ").split()
    )


def calls_tools(contents: Contents) -> bool:
    """Whether a model's output asks for tools: as messages of the usual interfaces, or as code."""
    noted = contents.noted
    if "calls" not in noted:
        noted["calls"] = _calls_tools(contents)
    return bool(noted["calls"])


def _calls_tools(contents: Contents) -> bool:
    output = contents.output
    first = output[:1]
    if first not in ("{", "["):
        return _in_code(output)
    ends = ends_of(output)
    if not any(key in ends for key in _CALL_WORDS):
        return _in_code(output)
    # What was cut is no JSON any more: then the beginning decides.
    if first == "[" or contents.output_is_cut:
        return any(key in output[:_BEGINNING] for key in _CALL_KEYS) or _in_code(output)
    found = contents.taken
    if not isinstance(found, dict):
        return _in_code(output)
    for key in (
        "tool_calls",
        "function_call",
        "functionCall",
        "tool_use",
        "function",
        "arguments",
        "tool",
        "action",
    ):
        if found.get(key):
            return True
    stated = found.get("content")
    if isinstance(stated, list):
        return any(
            isinstance(part, dict) and "tool" in str(part.get("type", "")) for part in stated
        )
    return _in_code(stated) if isinstance(stated, str) else False


def _in_code(text: str) -> bool:
    if "`" in text and "```" in text:
        return True
    return ("<" in text and ("<tool_call" in text or "<function" in text)) or (
        "A" in text and "Action:" in text
    )
