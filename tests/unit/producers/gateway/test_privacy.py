"""Private by choice at the gateway: capture by kind, samples, hooks, hashed user ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepstream.producers.gateway.mapping.log_records import LogMapper
from stepstream.producers.gateway.mapping.mapper import MAX_ATTRIBUTE_CHARS, MAX_DOCUMENT_CHARS
from stepstream.producers.gateway.mapping.options import Options, options_of
from stepstream.producers.gateway.mapping.spans import LogRecord, Span
from stepstream.producers.gateway.service.ingest import Batch, Ingest
from stepstream.schemas.capture import FULL, Capture, is_sampled
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import AnyStep
from tests.support.otlp import NOW_NS, NOW_US, OPTIONS, ORIGIN, TRACE, mapped, span

TEXT = "the customer's words, " * 20
KEY = "sk-proj-" + "a1B2" * 12
CHAT = {"gen_ai.operation.name": "chat", "input.value": TEXT, "output.value": TEXT}
TOOL = {"gen_ai.operation.name": "execute_tool", "input.value": TEXT, "output.value": TEXT}


def options(**settings: Any) -> Options:
    return options_of(Settings(steps_retention_days=10_000, **settings))


def step(attributes: dict[str, Any], using: Options, **fields: Any) -> AnyStep:
    return mapped(span(attributes=attributes, **fields), using)[0]


def ingested(using: Options, *events: dict[str, Any]) -> Batch:
    body = "\n".join(json.dumps(event) for event in events).encode()
    *_, batch = Ingest(using).steps(body, ORIGIN)
    return batch


def event(**fields: Any) -> dict[str, Any]:
    return {
        "trace_id": TRACE, "step_id": "1" * 16, "kind": "tool_call", "name": "search",
        "start_time": NOW_US, "end_time": NOW_US, "input": TEXT, "output": TEXT, **fields,
    }  # fmt: skip


def test_by_kind() -> None:
    using = options(capture="llm_call=off,tool_call=100")
    call, tool = step(CHAT, using), step(TOOL, using)
    assert (call.input, call.output, call.output_bytes) == ("", "", len(TEXT))
    assert 0 < len(tool.output) <= 100
    assert tool.output_bytes == len(TEXT)


def test_messages_that_are_logged_apart_from_their_span() -> None:
    """They are those of a model call."""
    record = LogRecord(
        trace_id=TRACE, span_id="1" * 16, time_ns=NOW_NS - 1, event_name="gen_ai.user.message",
        body={"content": "my words"}, attributes={},
    )  # fmt: skip
    for capture, expected in (("llm_call=off", False), ("tool_call=off", True)):
        found = LogMapper(options(capture=capture)).steps(record, ORIGIN)
        assert ("my words" in str(found)) == expected


def test_a_sample_of_the_runs() -> None:
    using = options(capture_sample=0.5)
    found = [step(CHAT, using, trace_id=f"{number:032x}") for number in range(1, 60)]
    assert all((one.input == TEXT) == is_sampled(one.trace_id, 0.5) for one in found)
    assert {one.input for one in found} == {"", TEXT}


def test_user_ids_are_hashed() -> None:
    user = "jane@example.com"
    attributes = {**CHAT, "user.id": user, "note": f"of {user}", "enduser.id": user}
    found = step(attributes, options(user_id_key="key"))
    assert found.user_id.startswith("hmac:")
    assert user not in str(found)


def upper(text: str) -> str:
    """A hook, as ``redact_hook`` names it."""
    return text.upper()


def test_a_hook() -> None:
    found = step({**CHAT, "note": "words"}, options(redact_hook=f"{__name__}:upper"))
    assert found.input == TEXT.upper()
    assert found.attributes["NOTE"] == "WORDS"
    assert found.project == "shop"


def test_a_hook_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="redact_hook must be module:function"):
        options(redact_hook="nowhere:hook")


def test_steps_that_clients_send_as_such() -> None:
    """Capture, redaction, user ids and hook, as for spans."""
    using = options(capture="tool_call=off", user_id_key="key")
    batch = ingested(using, event(user_id="jane", attributes={"note": KEY}, name=f"find {KEY}"))
    assert batch.taken == 1
    sent = json.loads(batch.records[0][1])
    assert sent.get("input", "") == sent.get("output", "") == ""
    assert sent["input_bytes"] == len(TEXT)
    assert sent["user_id"].startswith("hmac:")
    assert KEY not in str(sent)


def test_steps_without_secrets_stay_as_they_came() -> None:
    one = event(session_id="s", documents=[{"id": "1", "content": "text"}])
    batch = ingested(options(), one)
    assert json.loads(batch.records[0][1]) == {**one, "project": "shop"}


@pytest.mark.parametrize("private", [False, True])
def test_what_is_refused_is_kept_without_secrets(private: bool) -> None:
    """And with any choice of privacy not at all."""
    using = options(capture="*=off") if private else options()
    batch = ingested(using, event(step_id="wrong", input=f"{TEXT} {KEY}"))
    (letter,) = batch.letters
    assert KEY.encode() not in letter.value
    assert (TEXT.encode()[:40] in letter.value) != private
    refused: Span = span(attributes={"note": f"{TEXT} {KEY}"}, span_id="zz", name=KEY)
    fresh = Ingest(using).new_batch()
    Ingest(using)._add(refused, fresh, ORIGIN)
    assert KEY not in str(fresh.letters)
    assert KEY not in fresh.sentence


def test_a_secret_across_the_cut_is_not_half_sent() -> None:
    # The cut leaves 11 characters: too few for a key that the redaction knows.
    text = "x" * 98 + f" {KEY} " + "y" * 500
    using = Options(limits=OPTIONS.limits, capture=Capture({"llm_call": 110}))
    assert "sk-proj-a1" not in str(step({**CHAT, "input.value": text}, using))


@pytest.mark.parametrize("limit", [110, FULL])
def test_a_secret_across_the_cut_of_a_document_is_not_half_sent(limit: int) -> None:
    """By the setting, and by the number of characters that a document may have."""
    text = "x" * (min(limit, MAX_DOCUMENT_CHARS) - 12) + f" {KEY} " + "y" * 500
    using = Options(limits=OPTIONS.limits, capture=Capture({"retrieval": limit}))
    documents = {f"retrieval.documents.0.document.{name}": text for name in ("id", "content")}
    found = step({"openinference.span.kind": "RETRIEVER", **documents}, using)
    (document,) = found.documents
    assert document.content.startswith("xxx")
    assert len(document.content.encode()) <= min(limit, MAX_DOCUMENT_CHARS)
    assert "sk-proj-a1" not in document.content


def test_a_secret_across_the_cut_of_an_attribute_is_not_half_sent() -> None:
    text = "x" * (MAX_ATTRIBUTE_CHARS - 12) + f" {KEY} " + "y" * 500
    found = step({**CHAT, "note": text}, Options(limits=OPTIONS.limits))
    assert len(found.attributes["note"]) == MAX_ATTRIBUTE_CHARS
    assert "sk-proj-a1" not in found.attributes["note"]
