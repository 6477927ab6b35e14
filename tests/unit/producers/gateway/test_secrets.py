"""No secret leaves the gateway, and the cheap check before the full one misses none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.secrets import may_hold_secrets
from stepstream.producers.gateway.mapping.spans import SpanEvent
from stepstream.schemas.redaction import without_secrets
from stepstream.schemas.secret_forms import KEY_STARTS
from tests.support.otlp import NOW_NS, OPTIONS, mapped, span

KEY = "sk-proj-abcdefghijklmnop1234567890ABCDEF"


def test_a_planted_secret_is_in_no_field() -> None:
    """Inputs, outputs, errors, attributes, names, documents, chosen tools."""
    one = span(
        name=f"call {KEY}",
        attributes={
            "gen_ai.operation.name": "chat",
            "input.value": f"use {KEY}",
            "output.value": json.dumps(
                [{"type": "tool_call", "id": "1", "name": "x", "arguments": {"key": KEY}}]
            ),
            "note": f"Authorization: Bearer {KEY}",
            "api_key": "short",
            "gen_ai.retrieval.documents": f'[{{"id":"1","content":"{KEY}"}}]',
        },
        status=2,
        status_message=f"refused {KEY}",
        events=[SpanEvent(NOW_NS, "exception", {"exception.message": KEY})],
    )
    steps = mapped(one)
    assert len(steps) == 2
    assert KEY not in str(steps)
    assert steps[0].attributes["api_key"] == "[redacted]"
    untouched = mapped(one, Options(limits=OPTIONS.limits, redact=False))
    assert KEY in str(untouched)


@pytest.mark.parametrize("start", KEY_STARTS)
def test_every_form_of_key_is_noticed(start: str) -> None:
    """Each of the known beginnings, inside other text."""
    text = f"before {start}{'aB3' * 20} after"
    if without_secrets(text) != text:
        assert may_hold_secrets(text)


words = st.sampled_from(
    ["password", "=", ": ", '"', "secret", "://a:b@c", "Bearer ", "eyJ", ".eyJ", "x1" * 9, "sk-",
    "key", "_", " "]
)  # fmt: skip


@given(st.lists(words, max_size=12))
def test_the_cheap_check_misses_nothing(parts: list[str]) -> None:
    """Text that would be changed always gets the full check."""
    text = "".join(parts)
    if without_secrets(text) != text:
        assert may_hold_secrets(text)


def test_ordinary_texts_get_no_second_check() -> None:
    """Otherwise the cheap check would save nothing."""
    assert not may_hold_secrets(
        "Where is my order 4711? It was shipped on 2026-03-01, see https://example.com/a"
    )
