"""Forms of instructions in texts that should be data, and the addresses in a text."""

from __future__ import annotations

import re
from typing import Final

_TRIGGERS: Final = frozenset(
    b"ignore disregard forget override bypass instruction instructions prompt jailbreak assistant "
    b"ai agent system must important send forward email e-mail transfer post upload pay wire "
    b"ignoriere ignora ignorez tell telling asking informing".split()
)
"""Words of which every form has at least one: texts without them, most, cost one set operation."""
_OVERRIDE: Final = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:previous|prior|above|earlier|"
    r"preceding|all|your|any|other|the)\b[^.\n]{0,30}\b(?:instructions?|prompts?|rules|directions|"
    r"guidelines|orders|context|task)\b"
    r"|\b(?:new|updated|real|hidden) (?:system )?(?:instructions?|task) ?"
    r"(?::|for (?:the |you|ai|all))"
    r"|<\|?(?:im_start|system|inst)\|?>|\[/?INST\]|\[system\]|## ?(?:system|instructions?) ?:?\s"
    r"|\byou are now (?:a|an|in|the)\b|\bsystem (?:prompt|message|override) ?:"
    r"|\b(?:ai|the|attention|important|note)[,: ]+(?:to )?(?:(?:the |any |all )?(?:ai|llm|language "
    r"model|assistant|agent|chatbot)s?)[,: ]+[^.\n]{0,60}\b(?:must|should|please|need to|have "
    r"to|do not|now|immediately)\b"
    r"|\bwithout (?:asking|telling|informing|notifying|mentioning (?:it|this) to) (?:the )?user\b"
    r"|\bdo not (?:tell|inform|mention|reveal|show)[^.\n]{0,30} (?:the )?user\b"
    r"|\bignoriere (?:alle|die) [^.\n]{0,30}anweisungen\b"
    r"|\bignora (?:todas |las )[^.\n]{0,30}instrucciones\b"
    r"|\bignore[zr] (?:toutes |les )[^.\n]{0,30}instructions\b",
    re.IGNORECASE,
)
"""Instructions to the reader of the text, which data has no reason to give."""
# Repetitions have an end: without one a page of line ends takes seconds, each of which may begin a
# request.
_REQUEST: Final = re.compile(
    r"(?:^|[.,!?:;>\"'\n]|\b(?:please|then|and|must|should|to)\b)\s{0,40}+"
    r"(?:(?:please|now|also|immediately)\s{1,40}+){0,8}+"
    r"(?:send|forward|e-?mail|transfer|post|upload|pay|wire|submit|deliver|share|copy|bcc|cc)\b"
    r"[^.\n]{0,100}\b(?:to|at|via|with|into)\b",
    re.IGNORECASE,
)
"""A request to send something somewhere: an instruction if the address is used afterwards."""
_ADDRESS: Final = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|https?://([\w.-]{1,253})"
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"
    r"|(?<![\w.])\+?\d(?:[ -]?\d){8,17}(?![\w.])"
    r"|\b0x[0-9a-fA-F]{40}\b",
)
AROUND: Final = 300
"""Characters after an instruction that belong to it."""
MAX_ADDRESSES: Final = 50


def instruction_in(text: str, words: list[bytes]) -> tuple[int, str, bool] | None:
    """The first instruction in a text: its place, itself with what follows, and whether it is one
    by its form alone; None without any. ``words`` are those of the text in lower case.
    """
    if _TRIGGERS.isdisjoint(words):
        return None
    found = _OVERRIDE.search(text)
    by_form = found is not None
    found = found or _REQUEST.search(text)
    if found is None:
        return None
    return found.start(), text[found.start() : found.end() + AROUND], by_form


def addresses_in(text: str) -> set[str]:
    """E-mail addresses, hosts of links, account and telephone numbers, in one form each."""
    found = set()
    for match in _ADDRESS.finditer(text):
        if (host := match[1]) is not None:
            found.add(host.lower())
        else:
            found.add(re.sub(r"[ -]", "", match.group()).lower().lstrip("+"))
        if len(found) >= MAX_ADDRESSES:
            break
    return found


def names_tool(text: str, tool: str) -> bool:
    """Whether a text names a tool, in whatever way the parts of its name are joined."""
    plain = re.sub(r"[^a-z0-9]+", " ", tool.lower()).strip()
    return len(plain) > 3 and plain in re.sub(r"[^a-z0-9]+", " ", text.lower())
