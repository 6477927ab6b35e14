"""What secrets look like: forms that give themselves away, and names whose values are secret. Tables only."""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[redacted]"

_WORD: Final = r"[A-Za-z0-9]"


def _form(start: str, rest: str, before: str = _WORD) -> re.Pattern[str]:
    """A key that begins with ``start`` and does not go on from a word before it.

    The look-behind stands after the start, because a pattern that begins with plain text is searched for much faster.
    """
    text = re.escape(start)
    return re.compile(f"{text}(?<!{before}{text}){rest}")


_KEYS: Final[dict[str, str]] = {
    "sk-": r"(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek, Langfuse
    "gsk_": r"[A-Za-z0-9]{20,}",  # Groq
    "xai-": r"[A-Za-z0-9]{20,}",
    "pplx-": r"[A-Za-z0-9]{20,}",
    "r8_": r"[A-Za-z0-9]{30,}",  # Replicate
    "hf_": r"[A-Za-z0-9]{30,}",
    "tvly-": r"[A-Za-z0-9-]{20,}",
    "lsv2_pt_": r"[A-Za-z0-9_]{30,}",
    "lsv2_sk_": r"[A-Za-z0-9_]{30,}",
    "GOCSPX-": r"[A-Za-z0-9_-]{20,}",  # Google
    "ya29.": r"[A-Za-z0-9_-]{20,}",
    "ghp_": r"[A-Za-z0-9]{30,}",  # GitHub
    "gho_": r"[A-Za-z0-9]{30,}",
    "ghu_": r"[A-Za-z0-9]{30,}",
    "ghs_": r"[A-Za-z0-9]{30,}",
    "ghr_": r"[A-Za-z0-9]{30,}",
    "github_pat_": r"[A-Za-z0-9_]{30,}",
    "glpat-": r"[A-Za-z0-9_-]{20,}",
    "xoxb-": r"[A-Za-z0-9-]{10,}",  # Slack
    "xoxp-": r"[A-Za-z0-9-]{10,}",
    "xoxa-": r"[A-Za-z0-9-]{10,}",
    "xoxr-": r"[A-Za-z0-9-]{10,}",
    "xoxs-": r"[A-Za-z0-9-]{10,}",
    "xapp-": r"[A-Za-z0-9-]{10,}",
    "sk_live_": r"[A-Za-z0-9]{10,}",  # Stripe
    "sk_test_": r"[A-Za-z0-9]{10,}",
    "rk_live_": r"[A-Za-z0-9]{10,}",
    "rk_test_": r"[A-Za-z0-9]{10,}",
    "whsec_": r"[A-Za-z0-9+/=]{16,}",
    "SG.": r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    "npm_": r"[A-Za-z0-9]{30,}",
    "pypi-": r"[A-Za-z0-9_-]{40,}",
    "dop_v1_": r"[a-f0-9]{40,}",
    "shpat_": r"[a-fA-F0-9]{30,}",
    "hvs.": r"[A-Za-z0-9_-]{20,}",  # Vault
    "glsa_": r"[A-Za-z0-9_]{30,}",
    "lin_api_": r"[A-Za-z0-9]{30,}",
    "ntn_": r"[A-Za-z0-9]{30,}",
    "figd_": r"[A-Za-z0-9_-]{30,}",
    "PMAK-": r"[A-Za-z0-9-]{30,}",
    "AGE-SECRET-KEY-": r"1[A-Z0-9]{40,}",
}

KEYS: Final = {start: _form(start, rest, r"[A-Za-z0-9_-]" if start == "sk-" else _WORD) for start, rest in _KEYS.items()}
"""Keys of services, by how they begin."""

KEY_STARTS: Final = tuple(KEYS)
KEY_HINT: Final = re.compile(r"[_.-](?=[A-Za-z0-9_+/-]{10})")
"""Every start in ``KEYS`` ends with such a sign, before a long run of letters: the cheap look that comes first."""
LONGEST_START: Final = max(map(len, KEYS))

_KEY_LINES = r"(?:[A-Za-z0-9+/=\s:,.-]|\\+[nrt])*"
_PRIVATE_KEY = (
    rf"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:{_KEY_LINES}?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|{_KEY_LINES})"
)
_LOGIN_IN_URL = r"(://[^\s/:@\"'<>\\]{0,256}):[^\s/\"'<>\\$\[][^\s/\"'<>\\]{0,255}@"

FORMS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    ("AIza", _form("AIza", r"[A-Za-z0-9_-]{30,}"), REDACTED),  # Google
    ("AKIA", _form("AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"), REDACTED),  # AWS
    ("ASIA", _form("ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"), REDACTED),
    ("dapi", _form("dapi", r"[a-f0-9]{32}(?![A-Za-z0-9])"), REDACTED),  # Databricks
    ("eyJ", _form("eyJ", r"[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), REDACTED),  # JSON web token
    (":AA", re.compile(r"(?<![0-9])\d{8,10}:AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])"), REDACTED),  # Telegram
    ("/services/", re.compile(r"(hooks\.slack\.com/services/)[A-Za-z0-9/_-]{10,}"), r"\1" + REDACTED),
    ("/webhooks/", re.compile(r"(/api/webhooks/\d+/)[A-Za-z0-9_-]{20,}"), r"\1" + REDACTED),  # Discord
    ("PRIVATE KEY", re.compile(_PRIVATE_KEY), REDACTED),
    ("://", re.compile(_LOGIN_IN_URL), rf"\1:{REDACTED}@"),
    ("earer ", re.compile(r"([Bb]earer )\s{0,8}(?=[A-Za-z._~+/-]*\d)[A-Za-z0-9._~+/-]{12,}=*"), r"\1" + REDACTED),
    ("asic ", re.compile(r"(uthorization\W{1,8}[Bb]asic )\s{0,8}[A-Za-z0-9+/]{6,}=*"), r"\1" + REDACTED),
)
"""Other forms: plain text that each contains, its pattern, and what stands there afterwards."""

_KEY_OF: Final = ("api", "access", "account", "private", "signing", "encryption", "secret")

NAMES: Final[dict[str, tuple[re.Pattern[str], tuple[str, ...]]]] = {
    "pass": (re.compile(r"words?|wd|phrase|code"), ()),
    "pwd": (re.compile(""), ()),
    "secret": (re.compile(r"s|[_-]?key|"), ()),
    "key": (re.compile("s?"), tuple(f"{word}{joint}" for word in _KEY_OF for joint in ("", "_", "-", " "))),
    "authorization": (re.compile(""), ()),
    "credential": (re.compile("s?"), ()),
    "cookie": (re.compile(""), ()),
    "bearer": (re.compile(""), ()),
    "jwt": (re.compile(""), ()),
    "token": (re.compile(""), ()),
}
"""Names whose values are secret, in lower case: a stem, how it goes on, and what must stand before it."""

NUMBERED: Final = frozenset({"pass", "pwd"})
"""Stems of names whose values are secret even where they are numbers."""

HARMLESS_TOKENS: Final = (
    "page", "next", "continuation", "cursor", "pad", "eos", "bos", "unk", "stop", "first", "last", "per", "max", "min", "sep",
    "mask", "cls", "special", "end", "start", "image", "sync", "delta",
)  # fmt: skip
"""What stands before ``token`` where it is no secret: ``next_page_token``, ``pad_token``."""
