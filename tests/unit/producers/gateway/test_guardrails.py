"""Guardrails on a gateway's stream of commands: what callers get, and how an agent reads it."""

from __future__ import annotations

import json
import threading
from typing import Any

from stepstream.producers.control.commands import Commands
from stepstream.producers.control.http_listener import HttpCommandListener, _fields
from stepstream.producers.gateway.service.guardrails import GuardrailLog, guardrail_event
from stepstream.producers.guardrails.in_force import Guardrails
from stepstream.producers.guardrails.switch import guarding
from stepstream.schemas.settings import Settings


def record(name: str, project: str = "*") -> bytes:
    guardrail = {"name": "a", "check": "forbidden", "tools": ["delete"]}
    policy = {"name": name, "match": {"project": project}, "guardrails": [guardrail]}
    return json.dumps(policy).encode()


class Response:
    """What urllib3's response is read by."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read1(self, _size: int) -> bytes:
        data, self._data = self._data[:700], self._data[700:]
        return data


def test_a_stream_has_the_guardrails_of_its_projects_and_every_change() -> None:
    sent: list[bytes] = []
    shop = frozenset({"shop"})

    def spread(changed: Any) -> None:
        sent.extend(guardrail_event(key, one, shop) for key, one in changed)

    log = GuardrailLog(spread)
    assert list(log.events(shop)) == []  # not read yet
    log.begin((0,))
    log.record("policy/one", record("one"))
    log.record("policy/other", record("other", "bank"))
    log.record("policy/wrong", b"{}")
    log.ended(0)
    first = b"".join(log.events(shop))
    assert b'"policy/one"' in first
    assert b'"policy/other"' not in first
    assert b'"policy/other"' in b"".join(log.events(frozenset()))
    assert sent[0] == b"event: guardrails-begin\ndata: {}\n\n"
    assert sent[-1] == b"event: guardrails-end\ndata: {}\n\n"
    sent.clear()
    log.record("policy/one", record("one", "bank"))
    # It was for this project before: it is withdrawn there.
    assert sent == [b'event: guardrail\ndata: ["policy/one",null]\n\n']
    sent.clear()
    log.begin((0,))
    log.record("policy/other", record("other", "shop"))
    log.ended(0)
    assert sorted(sent) == [
        b'event: guardrail\ndata: ["policy/one",null]\n\n',
        b'event: guardrail\ndata: ["policy/other",%s]\n\n' % record("other", "shop"),
    ]


def test_an_agent_reads_them_from_the_stream() -> None:
    """And commands between them."""
    log = GuardrailLog(lambda _changed: None)
    log.begin((0,))
    log.record("policy/one", record("one"))
    log.ended(0)
    guardrails = Guardrails()
    commands = Commands()
    listener = HttpCommandListener(Settings(), commands, guardrails)
    stream = b"".join(log.events(frozenset()))
    stream += b'id: c1\nevent: command\ndata: {"command_id":"c1","action":"stop","time":1}\n\n'
    stream += b"event: guardrail\ndata: not json\n\n"
    _read(listener, stream)
    assert guardrails.status().policies == ("one@0",)
    assert commands.received == 1
    _read(listener, guardrail_event("policy/one", None))
    assert guardrails.book is None
    guarding.is_on = False


def _read(listener: HttpCommandListener, stream: bytes) -> None:
    listener._take_events(_fields(Response(stream), threading.Event()))
