"""One agent's run as the SDK publishes it: a plan, calls of models and tools, retrievals,
sub-agents, retries, an output."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, cast

from benchmarks.workload import Workload
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import DocumentStruct, Step
from stepstream.schemas.usage import TokenUsageStruct

AGENTS: Final = (
    "support",
    "researcher",
    "coder",
    "analyst",
    "shop-assistant",
    "triage",
    "reporter",
    "planner",
)
TASKS: Final = ("refund", "lookup", "summary", "report", "bugfix", "order")
TOOLS: Final = (
    "search_orders",
    "get_user",
    "run_query",
    "send_email",
    "read_file",
    "http_get",
    "calculate",
    "update_ticket",
)
INDICES: Final = ("handbook", "tickets", "catalogue")
MODELS: Final = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-3-5-haiku-latest"),
)
ERRORS: Final = (
    ("TimeoutError", "no answer within 30 s"),
    ("HTTPError", "503 Service Unavailable"),
)

ERROR_SHARE: Final = 0.04
IGNORED_SHARE: Final = 0.1
PARALLEL_SHARE: Final = 0.3
RETRIEVAL_SHARE: Final = 0.25
SUB_AGENT_SHARE: Final = 0.15

# Seconds since the run began, and the event; its own times are microseconds since then.
Timed = tuple[float, Step]


class TextPool:
    """Slices of one long text of words: contents that cost nothing to make and compress as prose
    does."""

    def __init__(self, rng: random.Random, size: int = 4_000_000) -> None:
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        words = [
            "".join(rng.choices(letters, range(26, 0, -1), k=rng.randrange(2, 11)))
            for _ in range(4_000)
        ]
        # Zipf's law: texts of equally frequent words would compress far less.
        weights = [1 / (rank + 3) for rank in range(len(words))]
        self._text = " ".join(rng.choices(words, weights, k=size // 6))

    def take(self, rng: random.Random, median: float, sigma: float = 0.8, most: int = 8_000) -> str:
        """Some text, lognormal in length."""
        # Most texts are short and some are very long, as in recorded runs.
        length = min(most, max(8, int(median * rng.lognormvariate(0, sigma))))
        start = int(rng.random() * (len(self._text) - length))
        return self._text[start : start + length]


class AgentRun:
    """Events of one run, in the order of their times, made as they are asked for."""

    def __init__(
        self, rng: random.Random, steps: int, workload: Workload, texts: TextPool, prices: PriceBook
    ) -> None:
        self._rng = rng
        self._left = max(1, steps)
        self._workload = workload
        self._texts = texts
        self._prices = prices
        self.trace_id = f"{rng.getrandbits(128) | 1:032x}"
        self._now_s = 0.0
        self._parent = ""
        self._retry: dict[str, Any] | None = None
        agent = rng.choice(AGENTS)
        self._owner: dict[str, Any] = {
            "trace_id": self.trace_id,
            "project": "shop" if agent in AGENTS[:4] else "office",
            "environment": "prod",
            "agent": agent,
            "agent_version": f"1.{rng.randrange(4)}.0",
            "task": rng.choice(TASKS),
            "session_id": f"s-{rng.getrandbits(40):010x}",
            "user_id": f"u-{rng.randrange(20_000)}",
        }

    def events(self) -> Iterator[Timed]:
        """All of them: two a step."""
        rng, texts = self._rng, self._texts
        root = self._fields("agent", self._owner["agent"], input=texts.take(rng, 260))
        yield self._start(root)
        self._parent = root["step_id"]
        self._left -= 1
        if self._left:
            yield from self._call_model("plan", "plan")
        while self._left > 1:
            if self._left > 6 and rng.random() < SUB_AGENT_SHARE:
                yield from self._sub_agent(root["step_id"])
            else:
                yield from self._turn()
        if self._left:
            self._left -= 1
            yield from self._step(
                self._fields("output", "answer"), 0.002, output=texts.take(rng, 420)
            )
        self._parent = ""
        yield self._end(root, status="ok", output=texts.take(rng, 350))

    def _sub_agent(self, root_id: str) -> Iterator[Timed]:
        self._left -= 1
        fields = self._fields(
            "agent", self._rng.choice(AGENTS), input=self._texts.take(self._rng, 150)
        )
        yield self._start(fields)
        self._parent = fields["step_id"]
        for _ in range(2):
            if self._left > 1:
                yield from self._turn()
        self._parent = root_id
        yield self._end(fields, output=self._texts.take(self._rng, 200))

    def _turn(self) -> Iterator[Timed]:
        """The model is asked, and what it wants is done: one tool or two at once."""
        yield from self._call_model("llm_call", "chat")
        if self._left <= 1:
            return
        if self._left > 2 and self._rng.random() < PARALLEL_SHARE and self._retry is None:
            yield from self._two_tools()
        elif self._rng.random() < RETRIEVAL_SHARE and self._retry is None:
            yield from self._retrieve()
        else:
            yield from self._call_tool()

    def _call_model(self, kind: str, name: str) -> Iterator[Timed]:
        self._left -= 1
        rng = self._rng
        provider, model = rng.choice(MODELS)
        size_in, size_out = self._workload.tokens(rng)
        usage = TokenUsageStruct(input_tokens=size_in, output_tokens=size_out)
        fields = self._fields(
            kind, name, provider=provider, model=model, input=self._texts.take(rng, 380)
        )
        cost = self._prices.price(provider, model, usage, 1_767_225_600_000_000)
        more: dict[str, Any] = {"usage": usage, "output": self._texts.take(rng, 320)}
        if cost.nanos is not None:
            usd = cast(Decimal, usd_from_nanos(cost.nanos))  # a string on the wire
            more |= {"cost_usd": usd, "cost_source": "priced", "price_version": cost.price_version}
        yield from self._step(fields, 0.3 + 0.012 * size_out, **more)

    def _call_tool(self) -> Iterator[Timed]:
        self._left -= 1
        rng = self._rng
        fields, self._retry = self._retry or self._tool_fields(), None
        failed = fields["step_id"] if rng.random() < ERROR_SHARE else ""
        if not failed:
            yield from self._step(
                fields, rng.lognormvariate(-1, 0.8), output=self._texts.take(rng, 260)
            )
            return
        # Most failures are tried again; the others are work for `tool_error_ignored`.
        if rng.random() >= IGNORED_SHARE:
            again = fields["step_id"]
            self._retry = {**fields, "step_id": self._step_id(), "attempt": 2, "retry_of": again}
        kind, message = rng.choice(ERRORS)
        yield from self._step(fields, 1.0, status="error", error_type=kind, error_message=message)

    def _two_tools(self) -> Iterator[Timed]:
        self._left -= 2
        rng = self._rng
        both = [(rng.lognormvariate(-1, 0.8), self._tool_fields()) for _ in range(2)]
        # Events leave in the order of their times, so the shorter call ends first.
        both.sort(key=lambda pair: pair[0])
        for _, fields in both:
            yield self._start(fields)
        began = self._now_s
        for seconds, fields in both:
            self._now_s = began + seconds
            yield self._end(fields, output=self._texts.take(rng, 260))

    def _tool_fields(self) -> dict[str, Any]:
        tool = self._rng.choice(TOOLS)
        arguments = f'{{"query":"{self._texts.take(self._rng, 110)}"}}'
        return self._fields("tool_call", tool, tool=tool, input=arguments)

    def _retrieve(self) -> Iterator[Timed]:
        self._left -= 1
        rng = self._rng
        index = rng.choice(INDICES)
        scores = sorted((round(rng.random(), 3) for _ in range(3)), reverse=True)
        documents = [
            DocumentStruct(
                id=f"{index}/{rng.randrange(9_999)}", score=score, content=self._texts.take(rng, 90)
            )
            for score in scores
        ]
        fields = self._fields("retrieval", index, input=self._texts.take(rng, 60))
        yield from self._step(fields, 0.12, documents=documents)

    def _fields(self, kind: str, name: str, **more: Any) -> dict[str, Any]:
        return {
            **self._owner,
            "step_id": self._step_id(),
            "parent_step_id": self._parent,
            "kind": kind,
            "name": name,
            **more,
        }

    def _step_id(self) -> str:
        return f"{self._rng.getrandbits(64) | 1:016x}"

    def _step(self, fields: dict[str, Any], seconds: float, **more: Any) -> Iterator[Timed]:
        yield self._start(fields)
        self._now_s += seconds
        yield self._end(fields, **more)

    def _start(self, fields: dict[str, Any]) -> Timed:
        self._now_s += 0.001
        fields["start_time"] = int(self._now_s * 1e6)
        return self._now_s, Step(**fields, phase="start")

    def _end(self, fields: dict[str, Any], **more: Any) -> Timed:
        return self._now_s, Step(**fields, **more, phase="end", end_time=int(self._now_s * 1e6))
