"""Hostile data, seeded: contents of steps and records of every topic, made from valid ones by what
is known to break readers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from stepstream.schemas.promotion import Promotion, decide, head_after
from stepstream.schemas.release import hash_of
from stepstream.schemas.release_log import decision_key, head_key, promotion_key
from stepstream.schemas.topics import TOPIC_NAMES

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    -0.0,
    0.1,
    -320,
    2**31,
    # JSON numbers are doubles in many languages: exact up to 2**53.
    2**53 - 1,
    2**53,
    2**53 + 1,
    # The last integer that fits into 64 bits; above it msgspec and ClickHouse differ.
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    10**400,
    1e308,
    -1e308,
    5e-324,
    1.5,
    # Microseconds of the year 10000: the first time that datetime cannot hold.
    253_402_300_800_000_000,
    4_000_000_000_000_000,
)
WORDS: tuple[str, ...] = (
    "",
    " ",
    # isdigit() is true for these, and int() raises for some of them.
    "²",
    "①",
    "³¹",
    "٣",
    "１２",
    "½",
    "Ⅷ",
    "十",
    "1_0",
    " 1",
    "+1",
    "-1",
    "0x10",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "\x00",
    "\x1b[2J",
    "\r\n",
    # Right-to-left override: it turns the rest of a terminal's line around.
    "\u202e",
    "\ufeff",
    "\u2028",
    "e\u0301",
    "ß",
    "İ",
    "\U0001f469\u200d\U0001f4bb",
    "\ud83d",
    "a" * 300,
    "[/b]",
    "{}",
    "[]",
    "{",
    "'",
    '"',
    "\\",
    "%s",
    "{0}",
    "${x}",
    "=1+1",
    "../..",
    "error",
    "Error: 500",
    "404",
    "HTTP 500",
    "not found",
    "token=",
    "-eyJ" * 50,
    "password: hunter2",
    "sk-live-1234567890abcdef",
    "4111 1111 1111 1111",
    "078-05-1120",
    "data:image/png;base64," + "A" * 500,
    "<script>",
    "Traceback (most recent call last):",
    "ValueError: invalid literal",
    '{"error": {"code": "²"}}',
    # Backtracks without end where it is taken for a pattern.
    "(a+)+$",
    "0" * 5_000,
)
KEYS: tuple[str, ...] = (
    "code",
    "status",
    "error",
    "message",
    "success",
    "ok",
    "statusCode",
    "status_code",
    "results",
    "data",
    "items",
    "args",
    "input",
    "kwargs",
    "name",
    "id",
    "type",
    "isError",
    "errors",
    "detail",
    "",
    "²",
    "__class__",
    "constructor",
    "\ud83d",
    "a" * 100,
)
RAW: tuple[bytes, ...] = (
    b"",
    b"{",
    b"}",
    b"[]",
    b"null",
    b"0",
    b'""',
    b"\xff\xfe",
    b"\x00",
    b"\x80\x81",
    # Deeper than a recursive parser can go.
    b"[" * 5_000,
    b'{"a":' * 3_000,
    b'{"a":1e400}',
    # Two values of one key: readers differ in which one counts.
    b'{"a":1,"a":2}',
    b'{"trace_id":"\\ud800"}',
    b"NaN",
    b'{"time":NaN}',
    b"\xef\xbb\xbf{}",
    b"x" * 10_000,
    b'{"kind":"\xff"}',
)


class Hostile:
    """Makes it, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    # -- contents --

    def text(self) -> str:
        """A text of a tool or a model: words, JSON, JSON cut off, or much of one thing."""
        rng = self.random
        match rng.randrange(8):
            case 0:
                return rng.choice(WORDS)
            case 1:
                return " ".join(rng.choices(WORDS, k=rng.randrange(1, 12)))
            case 2:
                return rng.choice(WORDS) * rng.randrange(1, 60)
            case 3:
                made = self.json(self.value())
                return made[: rng.randrange(len(made) + 1)]
            case 4:
                depth = rng.choice((3, 60, 250))
                return "[" * depth + "]" * depth
            case 5:
                return rng.choice(RAW).decode("utf-8", "replace")[:3_000]
            case _:
                return self.json(self.value())

    def value(self, depth: int = 3) -> Any:
        """A JSON value of any kind."""
        rng = self.random
        kind = rng.randrange(9 if depth else 6)
        if kind < 2:
            return rng.choice(NUMBERS)
        if kind < 4:
            return rng.choice(WORDS)
        if kind < 6:
            return rng.choice((None, True, False))
        if kind < 8:
            return {rng.choice(KEYS): self.value(depth - 1) for _ in range(rng.randrange(5))}
        return [self.value(depth - 1) for _ in range(rng.randrange(5))]

    def json(self, value: Any) -> str:
        """The value as JSON; a key now and then twice."""
        made = json.dumps(value, ensure_ascii=self.random.random() < 0.5)
        if made.startswith('{"') and self.random.random() < 0.1:
            made = made[:-1] + ", " + made[1:]
        return made

    def contents(self) -> dict[str, Any]:
        """Fields of a step that is valid all the same."""
        rng = self.random
        fields: dict[str, Any] = {
            "kind": rng.choice(
                (
                    "tool_call",
                    "llm_call",
                    "retrieval",
                    "agent",
                    "guardrail",
                    "tool_selection",
                    "output",
                    "plan",
                )
            ),
            "tool": rng.choice(("", "search", "lookup", *WORDS[:30])),
            "input": self.text(),
            "output": self.text(),
            "status": rng.choice(("ok", "ok", "error", "cancelled", "weird")),
            "error_type": rng.choice(("", "", "Timeout", *WORDS[:20])),
            "error_message": self.text()[:200],
            "attempt": rng.choice((1, 1, 2, 3, 1_000)),
            "attributes": {
                rng.choice(KEYS[:-2]): str(rng.choice(WORDS)) for _ in range(rng.randrange(3))
            },
            "model": rng.choice(("", "gpt-4o", "claude-sonnet-4-5", *WORDS[:20])),
            "usage": {
                "input_tokens": rng.choice((0, 5, 2**31, 2**53)),
                "output_tokens": rng.choice((0, 5, 2**53)),
            },
        }
        if rng.random() < 0.2:
            fields["documents"] = [
                {
                    "id": rng.choice(WORDS),
                    "score": rng.choice((None, 0.5, -1e308, 0)),
                    "content": self.text()[:500],
                }
                for _ in range(rng.randrange(6))
            ]
        if rng.random() < 0.2:
            fields["cost_usd"] = rng.choice(
                ("0.1", "1000000", "0.000000001", "-1", "NaN", "²", 1e9)
            )
        return {
            name: _paired(value)
            for name, value in fields.items()
            if rng.random() < 0.85 or name == "kind"
        }

    # -- records --

    def record(self, valid: dict[str, Any]) -> bytes:
        """A record that is wrong, or odd, made from a valid one."""
        rng = self.random
        if rng.random() < 0.2:
            return rng.choice(RAW)
        item = copy.deepcopy(valid)
        # Mostly one change: a record with many is refused for the first, and the rest is untested.
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            name = rng.choice((*item, *KEYS[:3])) if item else rng.choice(KEYS)
            match rng.randrange(7):
                case 0:
                    item.pop(name, None)
                case 1:
                    item[name] = rng.choice(NUMBERS)
                case 2:
                    item[name] = rng.choice(WORDS)
                case 3:
                    item[name] = "x" * rng.choice((100, 5_000, 70_000))
                case _:
                    item[name] = self.value()
        made = self.json(item).encode("utf-8", "surrogatepass")
        match rng.randrange(8):
            case 0:
                return made[: rng.randrange(len(made))]
            case 1:
                place = rng.randrange(len(made))
                return made[:place] + rng.choice(RAW)[:8] + made[place:]
            case _:
                return made

    def key(self, valid: bytes) -> bytes | None:
        """A record's key: mostly the right one."""
        rng = self.random
        choices: tuple[bytes | None, ...] = (
            None,
            b"",
            b"\xff",
            b"x",
            b"|",
            b"!poison|steps|0|1",
            b"!fuse|steps|0",
            b"!windows|1",
            b"p|window|a",
            b"p|baseline|e|a|t",
            b"policy/x",
            b"A" * 32,
            b"0" * 32,
            valid.upper(),
            valid * 200,
        )
        return rng.choice(choices) if rng.random() < 0.3 else valid


def _paired(value: Any) -> Any:
    """What can be written as UTF-8: half a pair becomes a question mark, as producers write it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_paired(key): _paired(item) for key, item in value.items()}
    return [_paired(item) for item in value] if isinstance(value, list) else value


def valid_records(
    now_us: int, trace_id: str = "ab" * 16
) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Key and value of a valid record of each topic."""
    minute, project = now_us // 60_000_000 * 60_000_000, {"project": "hostile"}
    alert = {
        "alert_id": "7d1d0f3e-0000-4000-8000-000000000000",
        "seq": 1,
        "state": "firing",
        "severity": "error",
        "alert": "a",
        "rule": "r",
        "opened_at": now_us,
        "updated_at": now_us,
        "message": "m",
        "source_partition": 0,
        "source_offset": 5,
        **project,
    }
    key = trace_id.encode()
    step = {
        "trace_id": trace_id,
        "step_id": "cd" * 8,
        "parent_step_id": "",
        "phase": "end",
        "kind": "tool_call",
        "name": "n",
        "start_time": now_us,
        "end_time": now_us,
        "agent": "hostile",
        "cost_usd": "0.1",
        "usage": {"input_tokens": 5},
        **project,
    }
    usage = {
        "trace_id": trace_id,
        "revision": 2,
        "minute": minute,
        "steps": 1,
        "cost_usd": "0.5",
        "agent": "h",
        **project,
    }
    finding = {
        "finding_id": "f",
        "time": now_us,
        "alert": "a",
        "rule": "r",
        "subject": "s",
        "message": "m",
        **project,
    }
    trajectory = {
        "trace_id": trace_id,
        "revision": 3,
        "status": "ok",
        "closed": True,
        "start_time": now_us,
        "path": [],
        **project,
    }
    delivery = {
        "subscription": "ops",
        "alert_id": alert["alert_id"],
        "seq": 1,
        "state": "delivered",
        "time": now_us,
        "channel": "webhook",
        "severity": "error",
        "alert": "a",
        "alert_state": "firing",
        "record": alert,
        **project,
    }
    command = {"command_id": "c", "action": "stop", "time": now_us, "trace_id": trace_id, **project}
    policy = {
        "kind": "Policy",
        "name": "hostile",
        "match": {"agent": "hostile-only"},
        "rules": [{"rule": "loop", "repeats": 4}],
    }
    window = {
        **project,
        "start": minute - minute % 3_600_000_000,
        "end": minute,
        "through": 1,
        "minutes": [{"minute": 1, "steps": 1}],
    }
    submit = {"kind": "submit", "task_id": "t", "agent": "hostile", "input": {"a": 1}, **project}
    change = {"event": "submitted", "at_us": now_us, "epoch": 1, "revision": 1}
    return {
        "steps": (key, step),
        "usage": (b"hostile", usage),
        "findings": (b"hostile", finding),
        "alerts": (b"a", alert),
        "trajectories": (key, trajectory),
        "deliveries": (b"ops|a", delivery),
        "control": (key, command),
        "config": (b"policy/hostile", policy),
        "fleet": (b"hostile|window|||||||0|1", window),
        "state": (key, {"trace_id": trace_id}),
        "tasks": (b"hostile", submit),
        "taskstate": (b"t", {**submit, "kind": "task", "state": "waiting", **change}),
        "bindings": (b"ex-1", {**project, "kind": "epoch", "executor_id": "ex-1", "epoch": 1}),
        "deadletter": (key, {}),
    }


def hostile_records(
    seed: int, name: str, count: int, now_us: int
) -> Iterator[tuple[bytes | None, bytes]]:
    """Keys and values for one topic."""
    assert name in TOPIC_NAMES
    made = Hostile(sum(name.encode()) * 1_000 + seed)
    valid = release_records(now_us) if name == "releases" else [valid_records(now_us)[name]]
    for number in range(count):
        key, item = valid[number % len(valid)]
        yield made.key(key), made.record(item)


def release_records(now_us: int) -> list[tuple[bytes, dict[str, Any]]]:
    """A valid record of each kind on the topic ``releases``."""
    content: dict[str, Any] = {
        "kind": "Release",
        "agent": "hostile",
        "version": "v1",
        "prompts": {"plan": {"template": "Plan {{ x }}", "variables": ["x"], "model": {}}},
        "model": {"name": "gpt-4o"},
        "tools": [{"name": "t", "description": "", "parameters": {"type": "object"}}],
        "criteria": [],
    }
    release = {**content, "source": {"revision": "", "changed": False}, "hash": hash_of(content)}
    promotion = {
        "id": "ab" * 16,
        "action": "promote",
        "agent": "hostile",
        "label": "production",
        "release": release["hash"],
        "version": "v1",
        "expected": 0,
        "by": "ann",
        "at": now_us,
    }
    command = Promotion.model_validate(promotion)
    decision = decide(command, None, {release["hash"]: "v1"}, {}, now_us)
    head = head_after(None, decision)
    return [
        (f"release/hostile@{release['hash']}".encode(), release),
        (promotion_key(command).encode(), promotion),
        (decision_key(command).encode(), decision.model_dump(mode="json")),
        (head_key("hostile").encode(), head.model_dump(mode="json")),
    ]
