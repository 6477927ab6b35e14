"""Private by choice in the SDK: which contents are sent, hooks, hashed user ids."""

from __future__ import annotations

import hmac
import json

import pytest
from pydantic import SecretStr

import stepstream
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.capture import is_sampled
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent
from tests.support.sdk import Traced, logged, traced

# Longer than every limit that the tests set.
TEXT = "the customer's words, " * 20


def record(made: Traced, **run_fields: object) -> dict[str, StepEvent]:
    """A run with one step of four kinds, each with contents."""
    with made.tracer.run("agent", input=TEXT, **run_fields) as run:  # type: ignore[arg-type]
        with run.llm("llm", input=TEXT) as step:
            step.set_output(TEXT)
        with run.tool("tool", input={"text": TEXT}) as step:
            step.set_output(TEXT)
        with run.retrieval("docs", input=TEXT) as step:
            step.set_documents([{"id": "1", "content": TEXT}])
        with run.step("plan", "plan", input=TEXT) as step:
            step.set_output(TEXT)
    return made.ended


def sizes(step: StepEvent) -> list[int]:
    texts = [step.input, step.output, *(document.content for document in step.documents)]
    return [len(text) for text in texts]


def test_by_kind() -> None:
    """Off, truncated and on; the sizes are sent in any case."""
    with traced(capture="llm_call=off,tool_call=100,retrieval=off") as made:
        ended = record(made)
    assert sizes(ended["llm"]) == [0, 0]
    assert ended["llm"].input_bytes == ended["llm"].output_bytes == len(TEXT)
    assert 0 < max(sizes(ended["tool"])) <= 100
    assert ended["tool"].output_bytes == len(TEXT)
    assert sizes(ended["docs"]) == [0, 0, 0]
    assert ended["docs"].documents[0].id == "1"
    assert ended["plan"].input == ended["plan"].output == TEXT
    starts = {event.name: event for event in made.events if event.phase == "start"}
    # A start is sent long before its end: it must follow the same rule.
    assert starts["llm"].input == ""
    assert starts["plan"].input == TEXT


def test_the_step_decides_for_itself() -> None:
    """What is given on a step holds for it whatever the settings; a number truncates."""
    with traced(capture="*=off") as made:
        with made.tracer.run("run") as run:
            with run.llm("on", input=TEXT, capture_content=True):
                pass
            with run.llm("short", input=TEXT, capture_content=50):
                pass
            with run.llm("off", input=TEXT):
                pass
        ended = made.ended
    assert ended["on"].input == TEXT
    assert 0 < len(ended["short"].input) <= 50
    assert ended["off"].input == ""


def test_the_run_decides_for_its_steps_within_the_rules_for_their_kinds() -> None:
    with traced(capture="llm_call=off") as made:
        # A limit per kind is a rule of the operator; a run may only lower what is left.
        ended = record(made, capture_content=60)
    assert ended["llm"].input == ""
    assert 0 < len(ended["plan"].input) <= 60


def test_a_wrong_value_is_ignored() -> None:
    with logged() as messages, traced() as made:
        ended = record(made, capture_content="off")
    assert ended["llm"].input == TEXT
    assert "capture_content='off' is ignored" in messages[0].getMessage()


def test_a_sample_of_the_runs() -> None:
    """Contents of some runs, decided by the trace id; every run is recorded."""
    with traced(capture_sample=0.5) as made:
        for number in range(40):
            with made.tracer.run("run", input=TEXT) as run, run.tool(str(number), input=TEXT):
                pass
        steps = [step for step in made.events if step.phase == "end"]
    assert len(steps) == 80
    kept = {step.trace_id for step in steps if step.input}
    # By hash, so not exactly half; none or all of 40 has a probability of 2**-39.
    assert 0 < len(kept) < 40
    assert all((step.input == TEXT) == is_sampled(step.trace_id, 0.5) for step in steps)


def test_a_truncated_secret_is_not_half_sent() -> None:
    secret = "sk-proj-" + "a1B2" * 12
    # The limit of 40 is in the middle of the secret, which begins at 26.
    with traced(capture="tool_call=40") as made:
        with made.tracer.run("run") as run:
            with run.tool("a", input="x" * 25 + f" {secret} " + "y" * 200):
                pass
            with run.llm("b", input="x" * 25 + f" {secret} " + "y" * 200, capture_content=40):
                pass
        assert "sk-proj-a1" not in str(made.events)


def test_user_ids_are_hashed_with_a_key() -> None:
    """In the field and where an attribute repeats it; the same user has the same hash."""
    user = "jane@example.com"
    expected = "hmac:" + hmac.new(b"key", user.encode(), "sha256").hexdigest()[:32]
    with traced(user_id_key="key") as made:
        # Twice, so that equal hashes show that runs of a user can still be counted together.
        for _ in range(2):
            attributes = {"who": f"user {user}"}
            with made.tracer.run(user_id=user, attributes=attributes) as run, run.tool("tool"):
                pass
        events = made.events
    assert {event.user_id for event in events} == {expected}
    assert user not in str(events)
    assert events[0].attributes["who"] == f"user {expected}"
    with traced(user_id_key="key") as made:
        # As an agent does that gets the id from another one, which has hashed it.
        with made.tracer.run("run", user_id=expected):
            pass
        assert made.ended["run"].user_id == expected, "a hash is not hashed again"


def hide_names(text: str) -> str:
    """A hook, as ``redact_hook`` names it."""
    return text.replace("Jane", "[name]")


def test_a_hook_that_the_settings_name() -> None:
    with traced(redact_hook=f"{__name__}:hide_names") as made:
        with made.tracer.run("run", input="Jane Roe", user_id="Jane", project="Jane"):
            pass
        ended = made.ended["run"]
    assert (ended.input, ended.user_id) == ("[name] Roe", "[name]")
    assert ended.project == "Jane", "keys and policies belong to projects"


def test_without_the_hook_no_text_is_sent() -> None:
    """A name that cannot be imported must not lead to contents that are sent as they are."""
    with logged() as messages, traced(sound=False, redact_hook="nowhere:hook") as made:
        with made.tracer.run("run", input="Jane Roe"):
            pass
        events = made.events
    assert "Jane" not in str(events)
    assert "redact_hook must be module:function" in messages[0].getMessage()


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPSTREAM_CAPTURE", "tool_call=off")
    monkeypatch.setenv("STEPSTREAM_USER_ID_KEY", "key")
    transport = MemoryTransport()
    stepstream.configure(transport=transport, quiet=True)
    with stepstream.run("run", user_id="u1") as run, run.tool("tool", input="text"):
        pass
    assert stepstream.flush()
    assert [step.input for step in transport.ended] == ["", ""]
    assert transport.ended[0].user_id.startswith("hmac:")
    # Settings are printed in errors and by `stepstream settings`.
    assert "k3y" not in repr(Settings(user_id_key=SecretStr("k3y")))


def test_secrets_are_in_no_field() -> None:
    """Planted in everything that a program can set."""
    secret = "sk-proj-" + "a1B2" * 12
    with logged() as messages, traced() as made:
        fields = ("task", "agent", "agent_version", "session_id", "user_id", "environment")
        with made.tracer.run(
            f"name {secret}", input=secret, attributes={secret: secret},
            **dict.fromkeys(fields, f"x {secret}"),  # type: ignore[arg-type]
        ) as run:  # fmt: skip
            with run.llm(secret, model=secret, provider=secret, input={"a": [secret]}) as step:
                step.set_output(json.dumps({"text": secret}))
                step.set_error(ValueError(secret), error_type=secret)
                step.set_cost(secret)
            with run.tool(secret, tool=secret, tool_schema=secret, input=secret) as step:
                step.set_model(secret, secret)
            with run.retrieval(secret) as step:
                step.set_documents([{"id": secret, "content": secret}])
            with run.step(secret, secret, attempt=secret):  # type: ignore[call-overload]
                pass
        # A start and an end each of the run and its four steps: a step that was dropped would hide
        # a leak.
        assert len(made.events) == 10
    assert secret not in str([record.value for record in made.transport.records])
    assert secret not in str([message.getMessage() for message in messages])
    assert len(messages) >= 2
