"""One list of secrets for the SDK, the detectors and notifications.

And no text makes looking for them slow.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.producers.transport.redactor import without_secrets as of_the_sdk
from stepstream.schemas import secret_forms
from stepstream.schemas.redaction import Named, without_secrets
from stepstream.schemas.secret_forms import (
    CREDENTIALS,
    EMAIL,
    KEY_FORMS,
    KEY_HINT,
    KEYS,
    KINDS,
    TEXT_FORMS,
    web_tokens,
)
from stepstream.sinks.notify import quoting
from stepstream.stream.detectors.content import sensitive_forms
from stepstream.stream.detectors.content.sensitive_forms import FORMS, found_in
from tests.support.counting_matcher import Counter
from tests.support.data_cases import real_runs
from tests.support.secret_cases import HEX, JWT, KEY, LETTERS, SECRETS, made_up

BODIES = {
    "SG.": f"{made_up(1, 22)}.{made_up(2, 43)}",
    "AGE-SECRET-KEY-": "1" + made_up(1, 58, "ABCDEFGHJKLMNPQRSTUVW234567"),
}
TOKENS = {
    **{
        form.start: form.start + BODIES.get(form.start, made_up(20, 60, "0123456789abcdef"))
        for form in KEY_FORMS
    },
    "AKIA": f"AKIA{made_up(9, 16, 'ABCDEFGH12345')}",
    "ASIA": f"ASIA{made_up(9, 16, 'ABCDEFGH12345')}",
    "AIza": f"AIza{made_up(10, 35)}",
    "dapi": f"dapi{HEX[:32]}",
    "eyJ": JWT,
    "telegram": f"123456789:AA{made_up(16, 33)}",
    "slack webhook": (
        f"https://hooks.slack.com/services/T{made_up(1, 8)}/B{made_up(2, 8)}/{made_up(3, 24)}"
    ),
    "discord webhook": f"https://discord.com/api/webhooks/123456789/{made_up(3, 60)}",
    "terraform": f"{made_up(1, 14)}.atlasv1.{made_up(2, 60)}",
    "notion": f"secret_{made_up(3, 43)}",
    "mailgun": f"key-{HEX[:32]}",
    "firecrawl": f"fc-{HEX[:32]}",
    "atlassian": f"ATATT3xFfGF0{made_up(4, 180)}",
    "bitbucket": f"ATBB{made_up(5, 32)}",
    "google refresh token": f"1//0{made_up(6, 60)}",
    "signature": f"https://x.blob.core.windows.net/c?sv=2021&sig={made_up(7, 43)}%3D",
    "slack workflow": f"https://hooks.slack.com/workflows/T1/A1/{made_up(3, 24)}",
    "slack trigger": f"https://hooks.slack.com/triggers/T1/1/{made_up(3, 24)}",
    "teams webhook": f"https://x.webhook.office.com/webhookb2/{made_up(3, 36)}",
    "private key": (
        f"-----BEGIN RSA PRIVATE KEY-----\n{made_up(4, 60)}\n-----END RSA PRIVATE KEY-----"
    ),
    "bearer": f"authorization: bearer {made_up(8, 30)}",
    "basic": f"Authorization: Basic {made_up(9, 24)}",
    "address": f"postgresql://bob:{made_up(5, 12)}@db:5432/x",
}


@pytest.mark.parametrize("name", TOKENS)
def test_what_one_knows_all_know(name: str) -> None:
    """The SDK takes it out, a detector finds it, a notification does not contain it."""
    token = TOKENS[name]
    text = f"use {token} please"
    secret = max(re.split(r"[\n:/@ ]", token), key=len)
    assert secret not in of_the_sdk(text)
    assert secret not in quoting.redacted(text, 500)
    assert list(found_in(text, text.encode(), FORMS["key"])), name


@pytest.mark.parametrize(
    ("secret", "template"), SECRETS, ids=[template[:40] for _, template in SECRETS]
)
def test_notifications_are_cleared_of_all_that_the_sdk_takes_out(
    secret: str, template: str
) -> None:
    """Also by names, and where a plain word is the secret."""
    assert secret not in quoting.redacted(template.format(secret), 500)
    assert "correct" not in quoting.redacted("password: correct", 500)


def test_there_is_one_list() -> None:
    """Every key has a kind, and all packages use the same function and the same table."""
    assert KINDS.keys() == KEYS.keys()
    assert vars(sensitive_forms)["KEYS"] is KEYS
    assert vars(quoting)["without_secrets"] is without_secrets is of_the_sdk


def test_a_quoted_text_has_no_half_of_a_secret() -> None:
    """A long text is read in part.

    The part ends between words, and what is cut afterwards is clean.
    """
    for length in range(3_900, 4_100):
        quoted = quoting.redacted(
            "a" * (length - 1) + " " + f"sk-proj-{KEY} end " + "b" * 5_000, 500
        )
        assert "sk-proj" not in quoted


def test_clean_data_holds_no_secret() -> None:
    """No text of real agents in these runs is taken for a key, a token or a password."""
    runs = [
        run
        for source in ("tau_bench", "trail_gaia", "otel_framework_traces")
        for run in real_runs(source)
    ]
    texts = {text for run in runs for step in run for text in (step.input, step.output) if text}
    assert len(texts) > 3_000
    assert [found for text in texts for found in found_in(text, text.encode(), FORMS["key"])] == []


# -- work ---------------------------------------------------------------------------------------

# Parts of hostile texts: beginnings and ends of everything that is searched for.
PIECES = (
    "-eyJ", ".eyJ", "eyJ", "-eyJaaaaaaaa", ".eyJaaaaaaaa", "eyJaaaaaaaa.", "token=", "token:",
    "token='", 'token="',
    '"token":"', "token=\\'", 'token=\\"', '\\"token\\":\\"', "password=", "password: ",
    '"password":"', "'password': '",
    '"password":', '"password":[', "password=\\", "pwd=", "pwd='\\", 'jwt="', "secret=",
    "secret = ", "api_key=\\",
    "api key:", "apikey=a", "cookie:", "authorization: ", "Bearer ", "bearer=",
    "Authorization: Basic ", "credential=x.",
    "pass=1", "://", "://a:", "://:", "://a:b", "://a@", "@", "a@", "a.",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ",
    "PRIVATE KEY", "-----END ", "-----BEGIN A PRIVATE KEY-----\\n", "sk-", "-sk-", "sk-a", "SG.",
    "SG.aaaaaaaaaaaaaaaa",
    "-SG.a", "pypi-", "-pypi-", "xoxb-", "ghp_", "-ghp_", "hvs.", "ya29.", "AKIA", "AIza", "-AIza",
    "dapi", ":AA", "1:AA",
    "123456789:AA", "hooks.slack.com/services/", "/api/webhooks/1", "\\", "\\\\", '"', "'", "\n",
    " ", "a", "1", "1 ", "1-",
    "_", "-", ".", "*", "x", "<", "$", "{{", "token=token", "token=<", "token={{", "token=$",
    "token=***", "token=a(",
    "token=a.", "pwd=a[", '\\"', "'\\\\'", "[", "]", 'token=1\\\\"',
)  # fmt: skip
HOSTILE = [*PIECES, *(first + second for first in PIECES[::5] for second in PIECES[2::9])]
PATTERNS = {
    **{f"key {start}": pattern for start, pattern in KEYS.items()},
    **{form.what: form.pattern for form in (*TEXT_FORMS, *CREDENTIALS)},
    "hint": KEY_HINT,
    "email": EMAIL,
    "tail": secret_forms._TOKEN_TAIL,
    "number": quoting._LONG_NUMBER,
}


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_values_of_names_cost_what_the_text_is_long(piece: str) -> None:
    """Four times the text: about four times the characters examined, also behind an open quote."""
    for before in ("", "token='", 'password="\\\\\\"', '"'):
        examined = []
        # Characters examined are counted, not seconds: a quadratic search shows on any machine.
        for length in (4_000, 16_000):
            named = Named(before + piece * (length // len(piece)))
            named.spans()
            examined.append(named.examined)
        assert examined[1] <= 5 * examined[0] + 2_000
        assert examined[1] <= 60 * 16_000


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_backtracks_without_end(name: str) -> None:
    """Each pattern of the list, over each hostile text, by counted steps at n and 4n."""
    pattern = PATTERNS[name]
    for piece in PIECES:
        steps = []
        for length in (200, 800):
            counter = Counter(pattern)
            counter.finditer(piece * (length // len(piece)))
            steps.append(counter.steps)
        assert steps[1] <= 6 * steps[0] + 2_000, piece


def test_the_counting_matcher_finds_what_re_finds() -> None:
    """Else its counts would mean nothing."""
    texts = [f"a {token} b" for token in TOKENS.values()] + [piece * 20 for piece in PIECES]
    for pattern in PATTERNS.values():
        for text in texts:
            assert Counter(pattern).finditer(text) == [
                match.span() for match in pattern.finditer(text)
            ], (
                pattern.pattern,
                text,
            )
    assert Counter(re.compile(r"(?:a*)*b|a{1,9}c")).finditer("aaac") == [(0, 4)]
    slow = [Counter(re.compile("-?eyJ[a-zA-Z-]{8,}[.]")) for _ in range(2)]
    for counter, length in zip(slow, (50, 200), strict=True):
        counter.finditer("-eyJ" * length)
    assert slow[1].steps > 10 * slow[0].steps  # what is quadratic is seen


def test_web_tokens_cost_what_the_text_is_long() -> None:
    """The same tokens are found as by one pattern from each ``eyJ``."""
    plain = re.compile(
        r"eyJ(?<![A-Za-z0-9]eyJ)[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"
    )
    for text in (
        JWT,
        f"-{JWT}",
        f"a{JWT}",
        f"{JWT}.{JWT}",
        f"x.{JWT} {JWT}",
        "-eyJ" * 50 + ".eyJ" * 50,
        f"-eyJ{JWT}",
        f"{JWT[:-5]}.eyJ",
    ):
        assert list(web_tokens(text)) == [match.span() for match in plain.finditer(text)], text


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES) | st.sampled_from(list(LETTERS[:8])), max_size=30).map("".join)
)
def test_any_mixture_is_redacted_without_error_and_once(text: str) -> None:
    """What was redacted stays as it is."""
    clean = without_secrets(text)
    assert without_secrets(clean) == clean
