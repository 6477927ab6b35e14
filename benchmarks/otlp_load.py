"""OTLP request bodies as agents export them: spans of GenAI conventions, 512 a body by default."""

from __future__ import annotations

import gzip
import json
import random
import struct
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.otlp import json_pairs, pairs

# Spans of a body: the batch size of OpenTelemetry's SDKs.
SPANS: Final = 512
TRACE_SPANS: Final = 16
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
# Bodies that are encoded; all others are copies with other ids and times.
TEMPLATES: Final = 4
_BATCH: Final = "batch-00000000"
_WORDS: Final = (
    "order", "refund", "customer", "invoice", "delivery", "address", "search", "result", "policy",
    "payment", "account", "ticket", "agent", "answer", "question", "document", "price", "status",
    "reason", "request", "please", "check", "confirm", "update", "the", "a", "of", "in", "and",
    "to", "for", "with", "from", "about", "before", "after", "within", "days", "item", "number",
    "total", "email", "name", "shipping", "warehouse", "manager", "approve", "reject", "escalate",
    "summary", "context", "evidence", "paragraph", "table",
)  # fmt: skip

Span = dict[str, Any]


@dataclass(frozen=True)
class Body:
    """One request: its bytes (compressed, if asked), its spans, and its batch's name.

    Every span of it has that name as its session.
    """

    data: bytes
    spans: int
    batch: str


class OtlpLoad:
    """Makes bodies of one format, seeded. All ids of all bodies are different."""

    def __init__(
        self, form: str = PROTOBUF, spans: int = SPANS, *, seed: int = 1, remote: bool = False
    ) -> None:
        """``remote``: the spans without a parent have one in another process instead."""
        self.form = form
        self._random = random.Random(seed)
        self._count = 0
        self._label = f"{seed % 100:02d}"
        self._templates = [
            _Template(form, _spans(spans, self._random, remote=remote)) for _ in range(TEMPLATES)
        ]

    def body(self, now_ns: int, *, compressed: bool = True) -> Body:
        """The next body; its last span ends at ``now_ns``."""
        self._count += 1
        batch = f"batch-{self._label}{self._count:06d}"
        template = self._templates[self._count % TEMPLATES]
        data = template.filled(self._random, now_ns, batch)
        if compressed:
            # Level 1: making the bodies takes longer than sending them otherwise.
            data = gzip.compress(data, 1)
        return Body(data, len(template.spans), batch)


class _Template:
    """An encoded request of which ids, times and the batch's name are replaced in place.

    They have a fixed size in both formats, so that no body has to be encoded again: encoding one
    costs forty times as much.
    """

    def __init__(self, form: str, spans: list[Span]) -> None:
        self.form = form
        self.spans = spans
        encoded = _encoded_json(spans) if form == JSON else _encoded_protobuf(spans)
        self._bytes = encoded
        self._batch_at = encoded.index(_BATCH.encode())
        self._trace_ids = sorted({span["trace"] for span in spans})
        self._places = self._find_places()

    def _find_places(self) -> list[tuple[str, int, Any]]:
        """Where each id and time stands: what it is, the offset, the value."""
        found: list[tuple[str, int, Any]] = []
        at = 0
        for span in self.spans:
            fields = [("trace", span["trace"]), ("span", span["id"])]
            fields += [("span", span["parent"])] if span["parent"] else []
            for what, value in fields:
                at = self._bytes.index(self._id(value), at)
                found.append((what, at, value))
                at += len(self._id(value))
            for name in ("start", "end"):
                at = self._bytes.index(self._time(span[name]), at)
                found.append(("time", at, span[name]))
                at += 8
        return found

    def _id(self, value: bytes) -> bytes:
        return value.hex().encode() if self.form == JSON else value

    def _time(self, value: int) -> bytes:
        return str(value).encode() if self.form == JSON else struct.pack("<Q", value)

    def filled(self, chance: random.Random, now_ns: int, batch: str) -> bytes:
        """The bytes with new ids, times that end at ``now_ns``, and a batch's name."""
        made = bytearray(self._bytes)
        made[self._batch_at : self._batch_at + len(_BATCH)] = batch.encode()
        traces = {old: chance.randbytes(16) for old in self._trace_ids}
        spans: dict[bytes, bytes] = {}
        for what, at, value in self._places:
            if what == "time":
                new = self._time(now_ns - (_LAST_NS - value))
            elif what == "trace":
                new = self._id(traces[value])
            else:
                known = spans.get(value)
                if known is None:
                    known = spans[value] = chance.randbytes(8)
                new = self._id(known)
            made[at : at + len(new)] = new
        return bytes(made)


# When the last span of a template ends; 19 digits, as all times of this century.
_LAST_NS: Final = 1_790_000_000_000_000_000


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _spans(count: int, chance: random.Random, *, remote: bool) -> list[Span]:
    """Whole traces: an agent, calls of a model and of tools, and a retrieval in each."""
    made: list[Span] = []
    while len(made) < count:
        size = min(TRACE_SPANS, count - len(made))
        trace, root = chance.randbytes(16), chance.randbytes(8)
        for number in range(size):
            is_root = number == 0
            elsewhere = chance.randbytes(8) if remote else b""
            made.append(
                {
                    "trace": trace,
                    "id": root if is_root else chance.randbytes(8),
                    "parent": elsewhere if is_root else root,
                    "flags": 0x301 if is_root and remote else 0x101,
                    "start": _LAST_NS - (size - number + 1) * 40_000_000,
                    "end": _LAST_NS if is_root else _LAST_NS - (size - number) * 40_000_000,
                    **_work(chance, 0 if is_root else 1 + number % 5),
                }
            )
    return made


def _work(chance: random.Random, kind: int) -> dict[str, Any]:
    """Name and attributes of a span."""
    common = {"gen_ai.agent.name": "support", "gen_ai.conversation.id": None, "user.id": "u-1842"}
    call = f"call_{chance.getrandbits(64):016x}"
    if kind == 0:
        return {
            "name": "invoke_agent support",
            "attributes": {
                "gen_ai.operation.name": "invoke_agent",
                **common,
                "gen_ai.agent.id": "asst_5j66UpCpwteGg4YSxUnt7lPY",
                "gen_ai.agent.version": "1.4.2",
                "input.value": _text(chance, 40),
                "output.value": _text(chance, 60),
                "app.tenant": "acme",
                "app.release": "2026.11.3",
            },
        }
    if kind in (1, 3):
        asked = json.dumps(
            [
                {"role": "user", "parts": [{"type": "text", "content": _text(chance, 30)}]},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": call,
                                            "response": _text(chance, 12)}]},
            ]
        )  # fmt: skip
        answered = json.dumps(
            [{"role": "assistant", "finish_reason": "stop",
              "parts": [{"type": "text", "content": _text(chance, 20)}]}]
        )  # fmt: skip
        return {
            "name": "chat gpt-4o",
            "attributes": {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                **common,
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.response.model": "gpt-4o-2024-08-06",
                "gen_ai.request.temperature": 0.2,
                "gen_ai.request.max_tokens": 1024,
                "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(96):024x}",
                "gen_ai.response.finish_reasons": ["stop"],
                "gen_ai.usage.input_tokens": chance.randrange(200, 4_000),
                "gen_ai.usage.output_tokens": chance.randrange(20, 800),
                "gen_ai.usage.cache_read.input_tokens": 128,
                "gen_ai.input.messages": asked,
                "gen_ai.output.messages": answered,
                "server.address": "api.openai.com",
                "server.port": 443,
            },
        }
    if kind == 5:
        documents = json.dumps(
            [{"id": f"doc-{n}", "score": 0.9 - n / 10, "content": _text(chance, 15)}
             for n in range(3)]
        )  # fmt: skip
        return {
            "name": "retrieval policies",
            "attributes": {
                "gen_ai.operation.name": "retrieval",
                **common,
                "gen_ai.data_source.id": "policies",
                "gen_ai.retrieval.query.text": _text(chance, 10),
                "gen_ai.retrieval.documents": documents,
                "db.system": "qdrant",
                "retrieval.top_k": 3,
                "app.tenant": "acme",
            },
        }
    return {
        "name": "execute_tool search_orders",
        "attributes": {
            "gen_ai.operation.name": "execute_tool",
            **common,
            "gen_ai.tool.name": "search_orders",
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call,
            "gen_ai.tool.description": "Finds the orders of a customer by a text.",
            "gen_ai.tool.call.arguments": json.dumps({"query": _text(chance, 6), "limit": 10}),
            "gen_ai.tool.call.result": json.dumps({"orders": [_text(chance, 12)], "total": 1}),
            "app.tenant": "acme",
            "app.region": "eu-west-1",
            "app.release": "2026.11.3",
            "retry.count": 0,
            "cache.hit": False,
        },
    }


_RESOURCE: Final = {
    "service.name": "support",
    "service.version": "1.4.2",
    "deployment.environment.name": "production",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "session.id": _BATCH,
}


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _encoded_protobuf(spans: list[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs(_RESOURCE))
    scoped = group.scope_spans.add()
    scoped.scope.name = "support.agent"
    for span in spans:
        scoped.spans.add(
            trace_id=span["trace"],
            span_id=span["id"],
            parent_span_id=span["parent"],
            name=span["name"],
            kind=1,
            start_time_unix_nano=span["start"],
            end_time_unix_nano=span["end"],
            attributes=pairs(_given(span["attributes"])),
            flags=span["flags"],
        )
    data: bytes = request.SerializeToString()
    return data


def _encoded_json(spans: list[Span]) -> bytes:
    made = [
        {
            "traceId": span["trace"].hex(),
            "spanId": span["id"].hex(),
            "parentSpanId": span["parent"].hex(),
            "name": span["name"],
            "kind": 1,
            "startTimeUnixNano": str(span["start"]),
            "endTimeUnixNano": str(span["end"]),
            "attributes": json_pairs(_given(span["attributes"])),
            "status": {},
            "flags": span["flags"],
        }
        for span in spans
    ]
    scoped = [{"scope": {"name": "support.agent"}, "spans": made}]
    resource = {"attributes": json_pairs(_RESOURCE)}
    request = {"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}
    return json.dumps(request, separators=(",", ":")).encode()
