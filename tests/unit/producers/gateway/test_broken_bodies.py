"""Bodies that are broken in every way: no crash, no 500, and every item is taken, refused or kept
for the dead letter.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from typing import Any

import pytest

from stepstream.producers.gateway.otlp import answers
from stepstream.schemas.accept import Accepted, accept_value
from tests.support.gateway_app import App
from tests.support.otlp import json_request, request_of, span

SHORT = 20_000
LONG = 1_000_000
ALLOWED = {200, 400, 413, 415}


def seeds(now_ns: int) -> list[tuple[str, bytes, dict[str, str]]]:
    """Valid requests of every kind, to be broken."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.input.messages": '[{"role":"user","parts":[]}]',
        "gen_ai.output.messages": '[{"type":"tool_call","id":"1","name":"x","arguments":{}}]',
        "llm.input_messages.0.message.content": "hi",
        "list": [1, ["a"], {"b": 2.5}],
        "flag": True,
    }
    spans = [
        span(n, n - 1, attributes=attributes, start_ns=now_ns - 9_000, end_ns=now_ns)
        for n in (1, 2, 3)
    ]
    protobuf = request_of(spans).SerializeToString()
    as_json = json.dumps(json_request(spans)).encode()
    step = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "step_id": "00000000000000aa",
        "kind": "llm_call",
        "name": "x",
        "start_time": now_ns // 1_000 - 5,
        "end_time": now_ns // 1_000,
        "usage": {"input_tokens": 3},
        "attributes": {"a": "b"},
    }
    lines = "\n".join([json.dumps(step)] * 3).encode()
    proto = {"Content-Type": answers.PROTOBUF}
    plain = {"Content-Type": answers.JSON}
    return [
        ("/v1/traces", protobuf, proto),
        ("/v1/traces", as_json, plain),
        ("/v1/traces", gzip.compress(protobuf), {**proto, "Content-Encoding": "gzip"}),
        ("/v1/logs", protobuf, proto),
        ("/v1/logs", as_json, plain),
        ("/v1/steps", lines, {"Content-Type": "application/x-ndjson"}),
        ("/v1/steps", json.dumps([step, step]).encode(), plain),
    ]


_TOKENS = (b"null", b"{}", b"[]", b"-1", b"1e999", b'"\\ud800"', b"true", b"\x00", b"\xff\xff",
b'"', b"[" * 300)  # fmt: skip


def broken(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes changed, cut, doubled, or replaced by what parsers dislike."""
    data = bytearray(body)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 60)]
            case 2:
                data[at:at] = data[at : at + chance.randrange(1, 60)]
            case 3:
                data[at : at + chance.randrange(0, 6)] = chance.choice(_TOKENS)
            case 4 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)


async def play(count: int, seed: int) -> dict[int, int]:
    """Send ``count`` broken bodies; how often each status was answered."""
    chance = random.Random(seed)
    app = App()
    found: dict[int, int] = {}
    kinds = seeds(time.time_ns())
    for number in range(count):
        if number % 10_000 == 0:
            kinds = seeds(time.time_ns())
        path, body, headers = chance.choice(kinds)
        sent = broken(body, chance)
        before = len(app.writer.records), len(app.writer.letters)
        status, data, _ = await app.post(path, sent, headers)
        assert status in ALLOWED, (status, path, sent)
        found[status] = found.get(status, 0) + 1
        refused = refusals(path, status, data, headers["Content-Type"])
        assert len(app.writer.letters) - before[1] == refused, (path, sent)
        for key, value in app.writer.records[before[0] :]:
            verdict = accept_value(value, timestamp_us=time.time_ns() // 1_000)
            assert isinstance(verdict, Accepted), (verdict, sent)
            assert verdict.step.trace_id.encode() == key
        app.writer.records.clear()
        app.writer.letters.clear()
    assert (app.admission.in_flight, app.admission.in_flight_bytes) == (0, 0)
    return found


def refusals(path: str, status: int, data: bytes, form: str) -> int:
    """How many items were refused, by the answer."""
    if path == "/v1/steps":
        return int(json.loads(data).get("rejected", 0))
    if status != 200 or not data:
        return 0
    if form == answers.JSON:
        partial = json.loads(data).get("partialSuccess", {})
        return int(partial.get("rejectedSpans", partial.get("rejectedLogRecords", 0)))
    at = data.index(b"\x08") + 1  # field 1 of the partial success
    return data[at] & 127 | (data[at + 1] << 7 if data[at] > 127 else 0)


def test_twenty_thousand_broken_bodies() -> None:
    """Every kind of answer is met, so the bodies are broken neither too much nor too little."""
    found = asyncio.run(play(SHORT, 1))
    assert found[200] > SHORT / 10
    assert found[400] > SHORT / 10


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_million_broken_bodies() -> None:
    """The same, for as long as it takes."""
    assert sum(asyncio.run(play(LONG, 2)).values()) == LONG
