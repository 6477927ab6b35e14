"""The tables of the TypeScript SDK, generated from the Python source: kinds, limits, secrets.

``python -m tests.support.typescript_tables`` writes ``clients/typescript/src/tables.ts``;
``tests/unit/clients/test_typescript.py`` checks that it is current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from stepstream.local.service_ports import GATEWAY, USUAL
from stepstream.producers.control import listener
from stepstream.producers.gateway.service import control as gateway_control
from stepstream.producers.transport import encoder, http
from stepstream.producers.values import content, plain, shortening
from stepstream.schemas import control, ids, redaction, secret_forms
from stepstream.schemas.accept import DEFAULT_LIMITS
from stepstream.schemas.alert import Command
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import (
    KINDS,
    SHORT_TEXTS,
    STATUSES,
    TRACE_STATE_KEY,
    TRACE_STATE_VALUE,
)
from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage
from tests.support.paths import ROOT

TABLES: Final = ROOT / "clients/typescript/src/tables.ts"
_HEAD: Final = """\
// Generated from the Python source by `python -m tests.support.typescript_tables`: do not edit.
"""
_SETTINGS: Final = (
    "project",
    "capture_content",
    "capture_sample",
    "max_content_bytes",
    "queue_events",
    "queue_bytes",
    "control",
)


def camel(name: str) -> str:
    """``input_tokens`` as ``inputTokens``."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def regex(pattern: re.Pattern[str] | str) -> str:
    """The pattern's source for JavaScript: the same but for names of groups and the text's end."""
    source = pattern if isinstance(pattern, str) else pattern.pattern
    return source.replace("(?P<", "(?<").replace(r"\Z", "$")


def _replacement(text: str) -> str:
    """A replacement for ``String.replace``: ``$1`` where Python has a backslash and 1."""
    return text.replace("$", "$$").replace("\\1", "$1")


def _forms(forms: tuple[secret_forms.TextForm, ...]) -> list[dict[str, str]]:
    return [
        {
            "hint": form.hint,
            "pattern": regex(form.pattern),
            "instead": _replacement(form.instead),
        }
        for form in forms
    ]


def _constant(name: str, value: Any, type_name: str = "") -> str:
    declared = f": {type_name}" if type_name else ""
    frozen = "" if type_name else " as const"
    text = json.dumps(value, indent=2, ensure_ascii=True)
    return f"export const {name}{declared} = {text}{frozen};\n"


def _usage() -> str:
    lines = [
        "/** What a step used; each count is the step's own, without those of its children. */"
    ]
    lines.append("export interface Usage {")
    for name, field in TokenUsage.model_fields.items():
        kind = "boolean" if field.annotation is bool else "number"
        lines += [f"  /** {field.description} */", f"  {camel(name)}?: {kind};"]
    return "\n".join([*lines, "}\n"])


def _regexes() -> Mapping[str, str]:
    module: Any = redaction
    forms: Any = secret_forms
    return {
        "assigned": regex(module._ASSIGNED),
        "opening": regex(module._OPENING),
        "list": regex(module._LIST),
        "number": regex(module._NUMBER),
        "bare": regex(module._BARE),
        "code": regex(module._CODE),
        "scheme": regex(module._SCHEME),
        "notASecret": regex(module._NOT_A_SECRET),
        "keyHint": regex(forms.KEY_HINT),
        "tokenHead": regex(forms._TOKEN_HEAD),
        "tokenTail": regex(forms._TOKEN_TAIL),
    }


def tables() -> str:
    """The text of ``tables.ts``."""
    module: Any = redaction
    short: Any = shortening
    step: Any = http
    defaults = Settings()
    parts = [
        _HEAD,
        _constant("KINDS", KINDS),
        "/** What a step is. Another word becomes `other`, and an attribute of the step. */",
        "export type Kind = (typeof KINDS)[number];\n",
        _constant("STATUSES", sorted(STATUSES)),
        "export type Status = (typeof STATUSES)[number];\n",
        _constant("COMMAND_FIELDS", list(Command.model_fields)),
        _constant("ACTIONS", gateway_control.ACTIONS),
        "export type Action = (typeof ACTIONS)[number];\n",
        _usage(),
        _constant("USAGE_FIELDS", {camel(name): name for name in TokenUsage.model_fields}),
        _constant("SHORT_TEXTS", SHORT_TEXTS),
        _constant(
            "LIMITS",
            {
                "recordBytes": DEFAULT_LIMITS.max_record_bytes,
                "contentBytes": DEFAULT_LIMITS.max_content_bytes,
                "textChars": DEFAULT_LIMITS.max_text_chars,
                "messageChars": DEFAULT_LIMITS.max_message_chars,
                "attributes": DEFAULT_LIMITS.max_attributes,
                "attributeChars": encoder.ATTRIBUTE_CHARS,
                "documents": DEFAULT_LIMITS.max_documents,
                "usageCount": MAX_USAGE_COUNT,
                "contentDepth": plain.DEEPEST,
                "keyChars": plain.KEY_CHARS,
                "slackChars": content.SLACK_CHARS,
                "shortestFile": shortening.SHORTEST_FILE,
                "shortestDataUrl": short._SHORTEST_URL,
                "wordChars": short._WORD_CHARS,
            },
        ),
        _constant(
            "DEFAULTS",
            {camel(name): getattr(defaults, name) for name in _SETTINGS}
            | {
                "endpoint": f"http://127.0.0.1:{USUAL[GATEWAY]}",
                "pauseLimitMs": defaults.pause_limit // 1_000,
            },
        ),
        _constant(
            "HTTP",
            {
                "stepsPath": http.STEPS_PATH,
                "batchEvents": http.BATCH_EVENTS,
                "batchBytes": http.BATCH_BYTES,
                "answerMs": round(http.ANSWER_S * 1_000),
                "firstRetryMs": round(http.FIRST_RETRY_S * 1_000),
                "longestRetryMs": round(http.LONGEST_RETRY_S * 1_000),
                "longestRetryAfterMs": round(http.LONGEST_RETRY_AFTER_S * 1_000),
                "firstReconnectMs": round(listener.FIRST_RETRY_S * 1_000),
                "longestReconnectMs": round(listener.LONGEST_RETRY_S * 1_000),
            },
        ),
        _constant("REFUSED", sorted(step._REFUSED), "readonly number[]"),
        _constant("MISCONFIGURED", sorted(step._MISCONFIGURED), "readonly number[]"),
        _constant("TRACE_STATE", {"key": TRACE_STATE_KEY, "value": TRACE_STATE_VALUE}),
        _constant("ID_NAMESPACE", _namespace()),
        _constant("CONTROL_KIND", control.CONTROL_KIND),
        _constant("REDACTED", secret_forms.REDACTED),
        _constant(
            "KEYS", [[start, regex(form)] for start, form in secret_forms.KEYS.items()], _PAIRS
        ),
        _constant("TEXT_FORMS", _forms(secret_forms.TEXT_FORMS), _FORMS),
        _constant("CREDENTIALS", _forms(secret_forms.CREDENTIALS), _FORMS),
        _constant(
            "NAMES",
            [
                [stem, regex(rest), list(before)]
                for stem, (rest, before) in secret_forms.NAMES.items()
            ],
            "readonly (readonly [string, string, readonly string[]])[]",
        ),
        _constant("NUMBERED", sorted(secret_forms.NUMBERED), "readonly string[]"),
        _constant("HARMLESS_TOKENS", secret_forms.HARMLESS_TOKENS, "readonly string[]"),
        _constant("PATTERNS", _regexes()),
        _constant(
            "REDACTION",
            {
                "bareChars": module._BARE_CHARS,
                "examinedChars": module._EXAMINED_CHARS,
                "levels": sorted(module._LEVELS),
                "longestStart": secret_forms.LONGEST_START,
            },
        ),
    ]
    return "\n".join(parts)


_PAIRS: Final = "readonly (readonly [string, string])[]"
_FORMS: Final = "readonly { hint: string; pattern: string; instead: string }[]"


def _namespace() -> str:
    module: Any = ids
    return module._NAMESPACE.hex  # type: ignore[no-any-return]


def main() -> None:
    assert set(get_args(Command.model_fields["action"].annotation)) == set(gateway_control.ACTIONS)
    TABLES.write_text(tables())


if __name__ == "__main__":
    main()
