"""Secrets out of texts, and nothing else out of them."""

from __future__ import annotations

import json
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.producers.steps import Step
from stepstream.producers.transport.redactor import (
    UNREADABLE,
    Redactor,
    is_secret_name,
    without_secrets,
)
from stepstream.schemas.secret_forms import KEYS, REDACTED
from tests.support.sdk import traced
from tests.support.secret_cases import KEY, PLAIN, SECRETS, made_up


def in_json(text: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}]})


def in_json_twice(text: str) -> str:
    return json.dumps({"arguments": json.dumps({"text": text})})


def in_repr(text: str) -> str:
    return repr([text])


@pytest.mark.parametrize(
    ("secret", "template"), SECRETS, ids=[template[:40] for _, template in SECRETS]
)
@pytest.mark.parametrize(
    "around", [str, in_json, in_json_twice, in_repr], ids=["plain", "json", "json in json", "repr"]
)
def test_secrets_go(secret: str, template: str, around: Callable[[str], str]) -> None:
    """A secret goes from any text, also inside JSON, JSON in JSON and Python's repr; JSON stays
    JSON.
    """
    text = around(template.format(secret))
    clean = without_secrets(text)
    assert secret not in clean
    assert REDACTED in clean
    if around in (in_json, in_json_twice):
        json.loads(clean)
    # A text passes several redactors on its way: the mark itself is no secret.
    assert without_secrets(clean) == clean


@pytest.mark.parametrize("text", PLAIN, ids=[text[:40] for text in PLAIN])
@pytest.mark.parametrize("around", [str, in_json, in_repr], ids=["plain", "json", "repr"])
def test_ordinary_text_stays(text: str, around: Callable[[str], str]) -> None:
    """What holds no secret is left as it is, to the letter."""
    assert without_secrets(around(text)) == around(text)


@pytest.mark.parametrize("start", sorted(KEYS))
def test_every_known_key(start: str) -> None:
    """Each form in the table is found where it stands alone, and not inside a longer word."""
    body = {
        "SG.": f"{made_up(1, 22)}.{made_up(2, 43)}",
        "AGE-SECRET-KEY-": "1" + made_up(1, 58, string.ascii_uppercase),
    }
    key = start + body.get(start, made_up(20, 60, "0123456789abcdef"))
    assert without_secrets(f"use {key}, please") == f"use {REDACTED}, please"


def test_text_around_a_secret_stays() -> None:
    """Only the secret goes; what stands before and after is kept."""
    assert (
        without_secrets('{"user":"bob","password":"a\\"b","n":1}')
        == f'{{"user":"bob","password":"{REDACTED}","n":1}}'
    )
    assert without_secrets("postgres://bob:pw@db:5432/x") == f"postgres://bob:{REDACTED}@db:5432/x"
    assert without_secrets("a?api_key=x1y2z3&b=1") == f"a?api_key={REDACTED}&b=1"


@given(
    st.dictionaries(
        st.sampled_from(["password", "apiKey", "note", "token", "a\\b"]),
        st.text(max_size=30),
        max_size=4,
    )
)
def test_json_stays_json(data: dict[str, str]) -> None:
    """Whatever a secret contains, quotes and backslashes too, taking it out leaves JSON with the
    same keys.
    """
    for text in (
        json.dumps(data),
        json.dumps({"x": json.dumps(data)}),
        json.dumps(data, ensure_ascii=False),
    ):
        clean = json.loads(without_secrets(text))
        found = json.loads(clean["x"]) if "x" in clean else clean
        assert found.keys() == data.keys()
        if "password" in data:
            assert found["password"] in (REDACTED, data["password"])
            assert found["password"] == REDACTED or not any(c.isdigit() for c in data["password"])


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("DB_PASSWORD", True),
        ("X-Api-Key", True),
        ("accessToken", True),
        ("client.secret", True),
        ("authorization", True),
        ("private_key", True),
        ("token", True),
        ("key", False),
        ("max_tokens", False),
        ("next_page_token", False),
        ("tokenizer", False),
        ("monkey", False),
        ("region", False),
        ("secretary", False),
    ],
)
def test_secret_names(name: str, secret: bool) -> None:
    """Fields whose values are secret are known by how their names end."""
    assert is_secret_name(name) is secret


def test_the_hook_comes_last_and_fails_closed() -> None:
    """A hook of the program's own sees redacted text; when it fails, the text is withheld, not
    sent.
    """
    seen: list[str] = []

    def hook(text: str) -> str:
        seen.append(text)
        return text.replace("Bob", "someone")

    assert (
        Redactor(hook).text('Bob {"password":"hunter2"}') == f'someone {{"password":"{REDACTED}"}}'
    )
    # The program's hook may log what it gets.
    assert "hunter2" not in seen[0]
    with traced(sound=False):
        assert Redactor(lambda text: text[5000]).text("x") == UNREADABLE
        assert Redactor(lambda text: None).text("x") == UNREADABLE  # type: ignore[arg-type, return-value]


def test_everything_that_travels_is_redacted() -> None:
    """Input, output, error, attributes and documents of both events are clean, from the first step
    on.
    """
    secret = f"sk-proj-{KEY}"

    def call(step: Step) -> None:
        step.set_output(f"got {secret}")
        step.set_documents([{"id": "1", "content": f"doc {secret}"}])
        raise ValueError(f"denied for {secret}")

    with traced() as made:
        attributes = {"api_key": "plainlooking", "note": secret}
        with (
            pytest.raises(ValueError, match="denied"),
            made.tracer.tool("call", input={"password": secret}, attributes=attributes) as step,
        ):
            call(step)
        assert made.tracer.flush(10)
        sent = b"".join(record.value for record in made.transport.records)
        event = made.ended["call"]
    assert secret.encode() not in sent
    assert b"plainlooking" not in sent
    assert event.attributes == {"api_key": REDACTED, "note": REDACTED}
    assert (event.output, event.documents[0].content) == (f"got {REDACTED}", f"doc {REDACTED}")
    assert event.error_message == f"denied for {REDACTED}"


def test_a_secret_across_the_cut_is_not_half_sent() -> None:
    """A secret that begins before the size limit and ends beyond it is taken out whole."""
    secret = f"sk-proj-{KEY}"
    with traced(max_content_bytes=110) as made:
        with made.tracer.tool("call", input="x" * 90 + " " + secret):
            pass
        event = made.ended["call"]
    assert "sk-" not in event.input
