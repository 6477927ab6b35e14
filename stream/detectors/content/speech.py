"""What a model's step was: a request for tools, or an answer; and whether an answer speaks of trouble or asks for something."""

from __future__ import annotations

import re
from typing import Any, Final

from stepstream.stream.contents import Contents, ends_of
from stepstream.stream.steps import StepInfo

SPEAKING: Final = frozenset({"llm_call", "output"})
MAX_ANSWERS: Final = 50
"""Steps of a run whose words are noted; of more the latest."""
CALLED, SAID, ADMITTED, ASKED, CODED = 0, 1, 2, 3, 4
"""It asked for tools; an answer; an answer that speaks of trouble; one that asks the user for something; code of its own."""
ACTED: Final = frozenset({CALLED, CODED})
"""No answer."""

Answer = list[Any]
"""Start and end of a step, its id, and what it was."""

_LEAST_CODE: Final = 3
"""Lines of code that do something besides handing over an answer."""
_CALL_KEYS: Final = ('"tool_calls"', '"function"', '"tool_use"', '"arguments"', '"function_call"', '"functionCall"')
_CALL_WORDS: Final = ("tool", "function", "arguments", "action")
_BEGINNING: Final = 400
"""Characters in which any of these words speaks of the trouble; later ones must do so plainly."""
_TROUBLE: Final = frozenset({
    "unfortunately", "sorry", "apologies", "apologize", "apologise", "regret", "not", "cannot", "unable", "issue",
    "issues", "problem", "problems", "error", "errors", "fail", "failed", "fails", "failure", "invalid", "insufficient",
    "unavailable", "however", "instead", "longer", "trouble", "declined", "rejected", "denied", "seems", "problem:",
    "error:",
})  # fmt: skip
_PLAIN_TROUBLE: Final = re.compile(
    r"\b(?:unfortunately|sorry|unable|cannot|failed|failure|unsuccessful\w*|declined|rejected|denied|unavailable|error|"
    r"(?:could|can|was|were|did|does|do|is|are|has|have|will|would)(?:\s+not\b|n['\u2019]t\b)|"
    r"not (?:able|possible|available|found|work(?:ed|ing)?)|"
    r"(?:an? )?(?:issue|problem|trouble) (?:with|while|when|in)|went wrong)",
    re.IGNORECASE,
)
_ASKING: Final = re.compile(
    r"\b(?:could|can|would) you (?:please )?(?:kindly )?(?:provide|share|confirm|check|tell|give|verify|send|try|specify|"
    r"clarify|double|re-?enter|repeat|spell|supply|let me have)|"
    r"please (?:provide|share|confirm|check|tell|give|verify|send|try|specify|clarify|double|re-?enter|repeat|spell|supply)|"
    r"(?:what|which) (?:is|are|was) (?:your|the)|may i (?:have|ask|get)|do you (?:have|know|remember)|"
    r"i (?:will |'ll )?need your|"
    r"would you like to (?:try|use|pay|choose|provide|proceed)",
    re.IGNORECASE,
)
_LOWERED: Final = bytes(32 if code in b",.\x1c\x1d\x1e\x1f" else bytes([code]).lower()[0] for code in range(256))
"""ASCII in lower case, with blanks for what parts words in a text but not in bytes, and for commas and full stops."""
_TROUBLE_BYTES: Final = frozenset(word.encode() for word in _TROUBLE)


def note_answer(answers: list[Answer], step: StepInfo, contents: Contents) -> Answer | None:
    """Note what a model's step was; None where it is older than all of the many that are noted."""
    if len(answers) >= MAX_ANSWERS:
        if step.start_us < answers[0][0]:
            return None
        answers.sort()
        del answers[0]
    answer = [step.start_us, step.end_us, step.step_id, what_it_was(contents)]
    answers.append(answer)
    return answer


def what_it_was(contents: Contents) -> int:
    """What a model's step was, by its output."""
    noted = contents.noted
    if "was" not in noted:
        noted["was"] = _what_it_was(contents)
    return int(noted["was"])


def _what_it_was(contents: Contents) -> int:
    if not contents.output or calls_tools(contents):
        return CODED if "```" in contents.output and _does_more_than_answer(words_said(contents)) else CALLED
    said = words_said(contents)
    if _speaks_of_trouble(said[:_BEGINNING]) or (len(said) > _BEGINNING and _PLAIN_TROUBLE.search(said, _BEGINNING)):
        return ADMITTED
    return ASKED if _ASKING.search(said) else SAID


def _does_more_than_answer(text: str) -> bool:
    """Whether code does something besides handing over an answer."""
    code = text.partition("```")[2].partition("```")[0]
    lines = [line.strip() for line in code.split("\n")[1:] if line.strip() and not line.lstrip().startswith("#")]
    return sum("final_answer" not in line and not line.startswith("print(") for line in lines) >= _LEAST_CODE


def words_said(contents: Contents) -> str:
    """What a model's step says in words: out of the message that interfaces wrap around it, where there is one."""
    if contents.output[:1] not in ("{", "[", '"'):
        return contents.output
    parts: list[str] = []
    _collect(contents.taken, parts, 0)
    return "\n".join(parts) if parts else contents.output


_MESSAGE_KEYS: Final = ("content", "text", "message", "choices", "output", "parts", "messages", "answer", "response")


def _collect(value: Any, parts: list[str], depth: int) -> None:
    """The texts under the keys in which messages hold their words."""
    if isinstance(value, str):
        parts.append(value)
    elif depth < 5 and isinstance(value, list):
        for item in value[:20]:
            _collect(item, parts, depth + 1)
    elif depth < 5 and isinstance(value, dict):
        for key in _MESSAGE_KEYS:
            if key in value:
                _collect(value[key], parts, depth + 1)


def _speaks_of_trouble(beginning: str) -> bool:
    if beginning.isascii():
        data = beginning.encode().translate(_LOWERED)
        return b"n't" in data or not _TROUBLE_BYTES.isdisjoint(data.split())
    lowered = beginning.lower().replace("\u2019", "'")
    return "n't" in lowered or not _TROUBLE.isdisjoint(lowered.replace(",", " ").replace(".", " ").split())


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
    if first == "[" or contents.output_is_cut:
        return any(key in output[:_BEGINNING] for key in _CALL_KEYS) or _in_code(output)
    found = contents.taken
    if not isinstance(found, dict):
        return _in_code(output)
    for key in ("tool_calls", "function_call", "functionCall", "tool_use", "function", "arguments", "tool", "action"):
        if found.get(key):
            return True
    said = found.get("content")
    if isinstance(said, list):
        return any(isinstance(part, dict) and "tool" in str(part.get("type", "")) for part in said)
    return _in_code(said) if isinstance(said, str) else False


def _in_code(text: str) -> bool:
    if "`" in text and "```" in text:
        return True
    return ("<" in text and ("<tool_call" in text or "<function" in text)) or ("A" in text and "Action:" in text)
