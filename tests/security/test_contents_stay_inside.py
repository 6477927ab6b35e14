"""An alert sends what it quotes from a step only as far as its subscription allows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.documents import Content, Subscription
from stepstream.schemas.step import StepEvent
from stepstream.sinks.notify.alert_stream import BadQuery, alert_record, content_of
from stepstream.sinks.notify.channel import deliver
from stepstream.sinks.notify.message import message, payload
from stepstream.testing.cases import DetectorCase
from stepstream.testing.world import World, as_they_happen
from tests.support.channel_cases import CASES, closing, context, context_for, mailbox, notification
from tests.support.content_cases import CASES as CONTENT
from tests.support.notify_world import alert, subscription
from tests.support.receiver import receiver
from tests.support.suite_cases import CASES as BEHAVIOUR

__all__ = ["closing"]  # a fixture of every test here

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

WRITTEN = "customer Jane Roe, diagnosis HIV, card 4111 1111 1111 1111, password=hunter22"
PARTS = ("Jane", "Roe", "HIV", "4111", "hunter22")
TEMPLATE = {"title": "{message} {quoted} {detail}", "body": "{quoted} {detail} {message}"}


def quoting_alert(**fields: Any) -> AlertStruct:
    """An alert that quotes a step in every field that may quote."""
    return alert(
        message="lookup failed although its step is marked ok", quoted=WRITTEN,
        detail=f"its last answer was {WRITTEN}",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736", severity="critical", **fields,
    )  # fmt: skip


def sub(content: Content, **fields: Any) -> Subscription:
    return subscription(content=content, **fields)


@pytest.mark.parametrize("own_words", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_no_channel_sends_contents_that_are_not_wanted(name: str, own_words: bool) -> None:
    """Neither in a title, a text, the alert's record nor by a template that names the quotation."""
    with receiver(answer=b"ok") as there:
        wanted = sub(
            "none", to={name: CASES[name].to(there.url)}, template=TEMPLATE if own_words else {}
        )
        for state in ("firing", "resolved"):
            assert (
                deliver(
                    notification(quoting_alert(state=state), new_alerts=1),
                    wanted,
                    context_for(there.url),
                ).kind
                == "delivered"
            )
        sent = b"".join(call.body for call in there.taken).decode()
    assert "although its step is marked ok" in sent
    assert not [part for part in PARTS if part in sent]


def test_neither_a_mail_nor_a_program_gets_contents_that_are_not_wanted(tmp_path: Path) -> None:
    """The channels that are not HTTP."""
    with mailbox() as (port, mails):
        to = {
            "host": "127.0.0.1",
            "port": port,
            "sender": "a@h.example",
            "to": ["b@h.example"],
            "encryption": "none",
        }
        assert (
            deliver(notification(quoting_alert()), sub("none", to={"email": to}), context()).kind
            == "delivered"
        )
    got = tmp_path / "got"
    code = f"import pathlib, sys; pathlib.Path({str(got)!r}).write_bytes(sys.stdin.buffer.read())"
    assert (
        deliver(
            notification(quoting_alert()),
            sub("none", to={"command": {"argv": [sys.executable, "-c", code]}}),
            context(),
        ).kind
        == "delivered"
    )
    sent = "".join(mails) + got.read_text()
    assert sent.count("although its step is marked ok") >= 2
    assert not [part for part in PARTS if part in sent]


def test_what_is_redacted_is_quoted_without_secrets_and_full_is_whole() -> None:
    """The other two choices."""
    redacted = json.dumps(payload(notification(quoting_alert()), sub("redacted")))
    assert "Jane Roe" in redacted
    assert not [part for part in ("4111", "hunter22") if part in redacted]
    full = message(notification(quoting_alert()), sub("full"))
    assert WRITTEN in full.body
    assert "Jane" not in full.title  # a title is ours in any case: it stands on locked screens


def test_the_stream_and_the_list_leave_out_what_is_not_wanted() -> None:
    """``content=none`` in the query; without it the records are as they are on the topic."""
    one = Alert.model_validate_json(
        json.dumps({name: getattr(quoting_alert(), name) for name in AlertStruct.__struct_fields__})  # type: ignore[attr-defined]
    )
    sent = alert_record(one, content_of("severity=critical&content=none"))
    assert Alert.model_validate_json(sent).quoted == ""
    assert not [part for part in PARTS if part in sent]
    assert WRITTEN in alert_record(one, content_of("severity=critical"))
    with pytest.raises(BadQuery, match="none, redacted, full"):
        content_of("content=some")


CANARY = "zebra-4711 Jane Roe"


@pytest.mark.parametrize("case", [*BEHAVIOUR, *CONTENT], ids=lambda case: case.name)
@pytest.mark.parametrize(
    "fields",
    [
        ("error_type",),
        ("error_message",),
        ("output",),
        ("input",),
        ("error_type", "error_message", "output", "input"),
    ],
    ids="+".join,
)
def test_no_detector_puts_what_a_step_wrote_into_its_sentence(
    case: DetectorCase, fields: tuple[str, ...]
) -> None:
    """The sentence is names and numbers, whatever a step's input, output and error are; a quotation
    stands apart."""

    def planted(step: StepEvent) -> StepEvent:
        texts = {name: getattr(step, name) for name in fields}
        return step.model_copy(
            update={name: _with_canary(text) for name, text in texts.items() if text}
        )

    events = [planted(step) for step in case.breaks]
    world = World(case)
    world.play(events, as_they_happen(events))
    for found in world.findings():
        # A word that no detector writes by itself.
        assert "zebra" not in found["message"], found
        assert "Jane" not in found.get("subject", ""), found


def _with_canary(text: str) -> str:
    """The text with more words in it; JSON stays JSON."""
    if text.endswith("}"):
        return f'{text[:-1]}{"," if text.strip("{} ") else ""}"text": "{CANARY}"}}'
    return f"{text[:-1]} {CANARY}{text[-1]}" if text[-1:] in "\"']" else f"{text} {CANARY}"
