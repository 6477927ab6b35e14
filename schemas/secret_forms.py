"""What secrets look like: forms that give themselves away, and names whose values are secret.

The one list of them: the SDK takes them out of what it sends, detectors find them in agents'
outputs, and notifications are cleared of them. Every pattern is searched in time linear in the
text, whatever the text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import Final, NamedTuple

REDACTED: Final = "[redacted]"

_WORD: Final = r"[A-Za-z0-9]"


def _form(start: str, rest: str, before: str = _WORD) -> re.Pattern[str]:
    """A key that begins with ``start`` and does not go on from a word before it.

    The assertion stands after the start, because a pattern that begins with plain text is
    searched for much faster.
    """
    text = re.escape(start)
    return re.compile(f"{text}(?<!{before}{text}){rest}")


class KeyForm(NamedTuple):
    """A key with a known beginning: ``what`` it is, its ``start``, the pattern of its ``rest``."""

    what: str
    start: str
    rest: str
    before: str = _WORD


KEY_FORMS: Final[tuple[KeyForm, ...]] = (
    KeyForm(  # OpenAI, Anthropic, OpenRouter, DeepSeek, Langfuse; words joined by dashes are none
        "an API key",
        "sk-",
        r"(?:(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}|[A-Za-z0-9]{24,})",
        r"[A-Za-z0-9_-]",
    ),
    KeyForm("a Groq key", "gsk_", r"[A-Za-z0-9]{20,}"),
    KeyForm("an xAI key", "xai-", r"[A-Za-z0-9]{20,}"),
    KeyForm("a Perplexity key", "pplx-", r"[A-Za-z0-9]{20,}"),
    KeyForm("a Replicate key", "r8_", r"[A-Za-z0-9]{30,}"),
    KeyForm("a Hugging Face token", "hf_", r"[A-Za-z0-9]{30,}"),
    KeyForm("a Tavily key", "tvly-", r"[A-Za-z0-9-]{20,}"),
    KeyForm("a LangSmith key", "lsv2_pt_", r"[A-Za-z0-9_]{30,}"),
    KeyForm("a LangSmith key", "lsv2_sk_", r"[A-Za-z0-9_]{30,}"),
    KeyForm("a Google client secret", "GOCSPX-", r"[A-Za-z0-9_-]{20,}"),
    KeyForm("a Google access token", "ya29.", r"[A-Za-z0-9_-]{20,}"),
    *(KeyForm("a GitHub token", f"gh{kind}_", r"[A-Za-z0-9]{30,}") for kind in "pousr"),
    KeyForm("a GitHub token", "github_pat_", r"[A-Za-z0-9_]{30,}"),
    *(
        KeyForm("a GitLab token", f"{kind}-", r"[A-Za-z0-9_-]{20,}")
        for kind in ("glpat", "gldt", "glrt", "glptt", "glcbt", "glagent")
    ),
    *(KeyForm("a Slack token", f"xox{kind}-", r"[A-Za-z0-9-]{10,}") for kind in "abceoprs"),
    KeyForm("a Slack token", "xapp-", r"[A-Za-z0-9-]{10,}"),
    *(
        KeyForm("a Stripe key", f"{kind}_{mode}_", r"[A-Za-z0-9]{10,}")
        for kind in ("sk", "rk")
        for mode in ("live", "test")
    ),
    KeyForm("a webhook key", "whsec_", r"[A-Za-z0-9+/=]{16,}"),
    KeyForm("a SendGrid key", "SG.", r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    KeyForm("an npm token", "npm_", r"[A-Za-z0-9]{30,}"),
    KeyForm("a PyPI token", "pypi-", r"[A-Za-z0-9_-]{40,}"),
    KeyForm("a DigitalOcean token", "dop_v1_", r"[a-f0-9]{40,}"),
    *(KeyForm("a DigitalOcean token", f"{kind}_v1_", r"[a-f0-9]{40,}") for kind in ("doo", "dor")),
    *(
        KeyForm("a Shopify token", f"{kind}_", r"[a-fA-F0-9]{30,}")
        for kind in ("shpat", "shpca", "shppa", "shpss")
    ),
    *(
        KeyForm("a Vault token", f"{kind}.", r"[A-Za-z0-9_-]{20,}")
        for kind in ("hvs", "hvb", "hvr")
    ),
    KeyForm("a Grafana token", "glsa_", r"[A-Za-z0-9_]{30,}"),
    KeyForm("a Grafana token", "glc_", r"[A-Za-z0-9+/_-]{32,}={0,2}"),
    KeyForm("a Docker token", "dckr_pat_", r"[A-Za-z0-9_-]{20,}"),
    KeyForm("a Docker token", "dckr_oat_", r"[A-Za-z0-9_-]{20,}"),
    KeyForm("a Heroku key", "HRKU-", r"[A-Za-z0-9_-]{30,}"),
    KeyForm("a New Relic key", "NRAK-", r"[A-Za-z0-9]{20,}"),
    KeyForm("a Sentry token", "sntrys_", r"[A-Za-z0-9+/=_-]{40,}"),
    KeyForm("a Sentry token", "sntryu_", r"[a-f0-9]{40,}"),
    *(
        KeyForm("a Doppler token", f"dp.{kind}.", r"[A-Za-z0-9]{40,}")
        for kind in ("pt", "st", "ct", "sa", "scim", "audit")
    ),
    *(
        KeyForm("a PlanetScale key", f"pscale_{kind}_", r"[A-Za-z0-9_.=-]{32,}")
        for kind in ("tkn", "pw", "oauth")
    ),
    KeyForm("a Supabase key", "sbp_", r"[a-f0-9]{40,}"),
    KeyForm("a Supabase key", "sb_secret_", r"[A-Za-z0-9_-]{20,}"),
    KeyForm("a RubyGems key", "rubygems_", r"[a-f0-9]{40,}"),
    KeyForm("an NVIDIA key", "nvapi-", r"[A-Za-z0-9_-]{40,}"),
    KeyForm("a Together key", "tgp_v1_", r"[A-Za-z0-9_-]{30,}"),
    KeyForm("an E2B key", "e2b_", r"[a-f0-9]{30,}"),
    KeyForm("a Pinecone key", "pcsk_", r"[A-Za-z0-9_]{40,}"),
    KeyForm("a Fly token", "fm2_", r"[A-Za-z0-9+/=_-]{40,}"),
    KeyForm("a Cloudflare token", "cfut_", r"[A-Za-z0-9_-]{30,}"),
    KeyForm("a Linear key", "lin_api_", r"[A-Za-z0-9]{30,}"),
    KeyForm("a Notion token", "ntn_", r"[A-Za-z0-9]{30,}"),
    KeyForm("a Figma token", "figd_", r"[A-Za-z0-9_-]{30,}"),
    KeyForm("a Postman key", "PMAK-", r"[A-Za-z0-9-]{30,}"),
    KeyForm("an age key", "AGE-SECRET-KEY-", r"1[A-Z0-9]{40,}"),
)
KEYS: Final = {form.start: _form(form.start, form.rest, form.before) for form in KEY_FORMS}
"""Patterns of keys, by how they begin."""
KINDS: Final = {form.start: form.what for form in KEY_FORMS}
"""What each of them is, in words."""

KEY_STARTS: Final = tuple(KEYS)
KEY_HINT: Final = re.compile(r"[_.-](?=[A-Za-z0-9_+/-]{10})")
"""Every start in ``KEYS`` ends with one of these: a cheap first check."""
LONGEST_START: Final = max(map(len, KEYS))


def key_starts(text: str) -> set[str]:
    """Which keys' starts stand in the text, before something long enough to be a key."""
    found: set[str] = set()
    for hint in KEY_HINT.finditer(text):
        end = hint.end()
        before = text[max(0, end - LONGEST_START) : end]
        if before.endswith(KEY_STARTS):
            found.update(start for start in KEY_STARTS if before.endswith(start))
    return found


_KEY_LINES = r"(?:[A-Za-z0-9+/=\s:,.-]|\\+[nrt])*"
# A truncated text may lack the end line: then the lines that look like a key are removed.
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:{_KEY_LINES}?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|{_KEY_LINES})"
)
LOGIN_IN_URL: Final = re.compile(
    r"(://[^\s/:@\"'<>\\]{0,256}):[^\s/\"'<>\\$\[][^\s/\"'<>\\]{0,255}@"
)
"""A password in an address; the first group is what stands before its colon."""


class TextForm(NamedTuple):
    """Another form: ``what`` it is, a text it contains, its pattern, and the replacement."""

    what: str
    hint: str
    pattern: re.Pattern[str]
    instead: str = REDACTED


TEXT_FORMS: Final[tuple[TextForm, ...]] = (
    TextForm("a Google API key", "AIza", _form("AIza", r"[A-Za-z0-9_-]{30,}")),
    TextForm("an AWS access key", "AKIA", _form("AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])")),
    TextForm("a temporary AWS access key", "ASIA", _form("ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])")),
    TextForm("a Databricks token", "dapi", _form("dapi", r"[a-f0-9]{32}(?![A-Za-z0-9])")),
    TextForm(
        "a Terraform token",
        ".atlasv1.",
        re.compile(r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{50,}"),
    ),
    TextForm(
        "a Notion token",
        "secret_",
        _form("secret_", r"[A-Za-z0-9]{43}(?![A-Za-z0-9])", r"[A-Za-z0-9_-]"),
    ),
    TextForm(
        "a Mailgun key", "key-", _form("key-", r"[a-f0-9]{32}(?![A-Za-z0-9-])", r"[A-Za-z0-9_-]")
    ),
    TextForm(
        "a Firecrawl key", "fc-", _form("fc-", r"[a-f0-9]{32}(?![A-Za-z0-9-])", r"[A-Za-z0-9_-]")
    ),
    TextForm("an Atlassian token", "ATATT3x", _form("ATATT3x", r"[A-Za-z0-9_=-]{40,}")),
    TextForm("a Bitbucket token", "ATBB", _form("ATBB", r"[A-Za-z0-9]{28,40}(?![A-Za-z0-9])")),
    TextForm("a Google refresh token", "1//0", _form("1//0", r"[A-Za-z0-9_-]{30,}")),
    TextForm(
        "a signature of an address",
        "sig=",
        re.compile(r"([?&]sig=)[A-Za-z0-9%+/_-]{32,}=*"),
        r"\1" + REDACTED,
    ),
    TextForm(
        "a Telegram token",
        ":AA",
        re.compile(r"(?<![0-9])\d{8,10}:AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])"),
    ),
    TextForm(
        "a Slack webhook",
        "hooks.slack.com/",
        re.compile(r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/_-]{10,}"),
        r"\1" + REDACTED,
    ),
    TextForm(
        "a Discord webhook",
        "/webhooks/",
        re.compile(r"(/api/webhooks/\d+/)[A-Za-z0-9_-]{20,}"),
        r"\1" + REDACTED,
    ),
    TextForm(
        "a Teams webhook",
        "webhook.office.com/",
        re.compile(r"(webhook\.office\.com/webhookb2/)[A-Za-z0-9@/_-]{10,}"),
        r"\1" + REDACTED,
    ),
    TextForm("a private key", "PRIVATE KEY", re.compile(_PRIVATE_KEY)),
)
"""Keys and tokens with more than a known beginning; JSON web tokens: see ``web_tokens``."""

HEADERS: Final[tuple[TextForm, ...]] = (
    TextForm(
        "a bearer token",
        "earer ",
        re.compile(r"([Bb]earer )\s{0,8}(?=[A-Za-z._~+/-]*\d)[A-Za-z0-9._~+/-]{12,}=*"),
        r"\1" + REDACTED,
    ),
    TextForm(
        "a login",
        "asic ",
        re.compile(r"(uthorization\W{1,8}[Bb]asic )\s{0,8}[A-Za-z0-9+/]{6,}=*"),
        r"\1" + REDACTED,
    ),
)
"""Credentials as they stand in headers."""

CREDENTIALS: Final[tuple[TextForm, ...]] = (
    TextForm("a password in an address", "://", LOGIN_IN_URL, rf"\1:{REDACTED}@"),
    *HEADERS,
)
"""Credentials by what stands around them."""

_TOKEN_CHARS: Final = string.ascii_letters + string.digits + "_-"
_TOKEN_TAIL: Final = re.compile(r"\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?")
_TOKEN_HEAD: Final = re.compile(r"(?<![A-Za-z0-9])eyJ(?=[A-Za-z0-9_-]{8})")


def web_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Where JSON web tokens begin and end. Each begins with ``eyJ`` and so does its second part;
    found by the dot between them, so that a run of letters is read once, however often
    ``eyJ`` stands in it.
    """
    done = 0
    while (dot := text.find(".eyJ", done)) >= 0:
        tail = _TOKEN_TAIL.match(text, dot)
        before = text[done:dot]
        begin = done + len(before.rstrip(_TOKEN_CHARS))
        head = None if tail is None else _TOKEN_HEAD.search(text, begin, dot)
        if tail is None or head is None:
            done = dot + 1
            continue
        yield head.start(), tail.end()
        done = tail.end()


EMAIL: Final = re.compile(
    r"\b[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,18}\b"
)
"""An address of a person or of a machine."""

_KEY_OF: Final = ("api", "access", "account", "private", "signing", "encryption", "secret")

NAMES: Final[dict[str, tuple[re.Pattern[str], tuple[str, ...]]]] = {
    "pass": (re.compile(r"words?|wd|phrase|code"), ()),
    "pwd": (re.compile(""), ()),
    "secret": (re.compile(r"s|[_-]?key|"), ()),
    "key": (
        re.compile("s?"),
        tuple(f"{word}{joint}" for word in _KEY_OF for joint in ("", "_", "-", " ")),
    ),
    "authorization": (re.compile(""), ()),
    "credential": (re.compile("s?"), ()),
    "cookie": (re.compile(""), ()),
    "bearer": (re.compile(""), ()),
    "jwt": (re.compile(""), ()),
    "token": (re.compile(""), ()),
}
"""Names with secret values, in lower case: stem, suffixes, and required prefix."""

NUMBERED: Final = frozenset({"pass", "pwd"})
"""Stems of names whose values are secret even where they are numbers."""

HARMLESS_TOKENS: Final = (
    "page", "next", "continuation", "cursor", "pad", "eos", "bos", "unk", "stop", "first", "last",
    "per", "max", "min", "sep",
    "mask", "cls", "special", "end", "start", "image", "sync", "delta",
)  # fmt: skip
"""What stands before ``token`` where it is no secret: ``next_page_token``, ``pad_token``."""
