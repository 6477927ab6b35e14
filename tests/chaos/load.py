"""Runs whose truth is known: a seeded plan of records with their times, and a producer that sends
them when they are due."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import Producer

from stepstream.common.kafka import producer
from stepstream.schemas.documents import document_key
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from tests.chaos.truth import Ended, Expected, RunTruth, Truth

# Seconds instead of the minutes of production: the load lasts a minute or two.
HUNG_AFTER_S = 5
STUCK_AFTER_S = 6
PUNCTUAL_LIMIT_S = 6
SLOW_LIMIT_S = 3
ROOTLESS_IDLE_S = 8

# Rules over baselines. They are switched off here: their findings depend on how fast runs were.
SPIKES = ("run_cost_spike", "run_tokens_spike", "run_steps_spike", "run_duration_spike")

POLICIES = (
    {
        "name": "watch",
        "rules": [
            {"rule": "hung_step", "after": f"{HUNG_AFTER_S}s"},
            {"rule": "stuck_run", "after": f"{STUCK_AFTER_S}s"},
            {"rule": "loop", "repeats": 4},
            {"rule": "tool_error_ignored"},
            *({"rule": rule, "enabled": False} for rule in SPIKES),
        ],
    },
    {
        "name": "punctual",
        "match": {"agent": "punctual"},
        "rules": [{"rule": "run_duration", "limit": f"{PUNCTUAL_LIMIT_S}s"}],
    },
    {
        "name": "slow",
        "match": {"agent": "slow"},
        "rules": [{"rule": "run_duration", "limit": f"{SLOW_LIMIT_S}s"}],
    },
    {
        "name": "spender",
        "match": {"agent": "spender"},
        "mode": "enforce",
        "rules": [{"rule": "run_cost", "limit_usd": "1.00", "warn_usd": "0.50", "action": "stop"}],
    },
)


@dataclass(order=True)
class Planned:
    """One record and when it is due, in seconds from the start.

    ``partition`` -1 leaves it to the key.
    """

    at_s: float
    number: int
    key: bytes = field(compare=False)
    value: bytes = field(compare=False)
    partition: int = field(compare=False, default=-1)


@dataclass(frozen=True)
class Shape:
    """How much load, and of which kinds: species by weight."""

    seconds: float
    runs_per_second: float
    long_runs: int = 20
    giant_steps: int = 800
    duplicate_share: float = 0.03
    garbage_share: float = 0.003
    misrouted_share: float = 0.05
    # How much later a duplicate or a late step may come.
    tail_s: float = 15


class Plan:
    """A seeded plan: the same seed and shape give the same records; only the start of time
    differs."""

    def __init__(self, seed: int, shape: Shape, start_us: int, partitions: int) -> None:
        self.shape = shape
        self.truth = Truth()
        self.records: list[Planned] = []
        self._rng = random.Random(seed)
        self._start_us = start_us
        self._partitions = partitions
        for index in range(shape.long_runs):
            self._long(index * 0.05)
        self._giant(1.0)
        runs = int(shape.seconds * shape.runs_per_second)
        names = list(SPECIES)
        weights = [SPECIES[name][0] for name in names]
        for _ in range(runs):
            name = self._rng.choices(names, weights)[0]
            SPECIES[name][1](self, self._rng.uniform(0, max(0.5, shape.seconds - 4)))
        self._disturb()
        self.records.sort()
        self.truth.sent = len(self.records)

    # -- species --

    def plain(
        self, at_s: float, *, agent: str = "worker", species: str = "plain", disorder_s: float = 0.0
    ) -> RunBuilder:
        """A tree of steps under a root; with ``disorder_s`` every record is delayed by up to so
        much."""
        run = self._run(species, agent, disorder_s)
        # Seven steps in the median, with a long tail, as recorded runs have.
        steps = min(60, max(2, int(self._rng.lognormvariate(2.0, 0.8))))
        span_s = self._rng.uniform(0.2, 3.0)
        root = run.start(at_s, kind="agent", name="answer")
        ids = [root]
        for index in range(1, steps):
            begin_s = at_s + span_s * index / (steps + 1)
            # One of the last six: a tree that is deep as well as wide.
            parent = self._rng.choice(ids[-6:])
            ids.append(
                run.step(
                    begin_s, begin_s + span_s / (steps + 1), parent, starts=self._rng.random() < 0.6
                )
            )
        run.end(root, at_s, at_s + span_s, kind="agent", name="answer")
        return run

    def shuffled(self, at_s: float) -> None:
        self.plain(at_s, species="shuffled", disorder_s=1.5)

    def punctual(self, at_s: float) -> None:
        self.plain(at_s, agent="punctual", species="punctual")

    def late(self, at_s: float) -> None:
        """Steps that come seconds after the run was closed."""
        run = self.plain(at_s, species="late")
        root = run.root
        for _ in range(self._rng.randrange(1, 4)):
            run.step(
                at_s + 0.1,
                at_s + 0.2,
                root,
                starts=False,
                deliver_s=at_s + self._rng.uniform(5, self.shape.tail_s),
            )

    def ends_only(self, at_s: float) -> None:
        """As an exporter of finished spans sends it: ends alone, the root's last."""
        run = self._run("ends_only", "exporter", 0.0)
        root = run.new_id()
        for index in range(self._rng.randrange(1, 12)):
            run.step(at_s + index * 0.02, at_s + index * 0.02 + 0.01, root, starts=False)
        run.end(root, at_s, at_s + 0.4, kind="agent", name="answer")

    def rootless(self, at_s: float) -> None:
        """Children of a root that is never sent."""
        run = self._run("rootless", "lost", 0.0)
        for index in range(self._rng.randrange(1, 6)):
            run.step(at_s + index * 0.1, at_s + index * 0.1 + 0.05, run.new_id(), starts=False)

    def agentless(self, at_s: float) -> None:
        """Steps that name no agent count for their run's, which is known only when the root
        comes."""
        run = self._run("agentless", "", 0.0)
        root = run.new_id()
        for index in range(4):
            run.step(at_s + index * 0.6, at_s + index * 0.6 + 0.3, root, starts=True)
        run.truth.agent = run.agent = "boss"
        run.end(root, at_s, at_s + 2.6, kind="agent", name="answer")

    def unended_child(self, at_s: float) -> None:
        """A step that never ends while the root does: hung, and the run closes without it."""
        run = self._run("unended_child", "worker", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        hung = run.start(at_s + 0.2, root, kind="tool_call", name="fetch", tool="fetch")
        run.end(root, at_s, at_s + 0.5, kind="agent", name="answer")
        run.truth.findings["hung-step", hung] = Expected()

    def unended_root(self, at_s: float) -> None:
        """A root that never ends: stuck, and open until the end of the scenario."""
        run = self._run("unended_root", "worker", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        for index in range(3):
            run.step(at_s + 0.2 * index, at_s + 0.2 * index + 0.1, root, starts=True)
        # A root without an end never closes its run; the rule `stuck_run` reports it.
        run.truth.closes = False
        run.truth.findings["stuck-run", ""] = Expected(resolved=0, live=True)

    def slow(self, at_s: float) -> None:
        """Longer than its limit, with signs of life all along."""
        run = self._run("slow", "slow", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        span_s = self._rng.uniform(SLOW_LIMIT_S + 1.5, SLOW_LIMIT_S + 4)
        for index in range(int(span_s / 0.7)):
            run.step(at_s + index * 0.7, at_s + index * 0.7 + 0.3, root, starts=True)
        run.end(root, at_s, at_s + span_s, kind="agent", name="answer")
        run.truth.findings["run-duration", ""] = Expected()

    def spender(self, at_s: float) -> None:
        """Passes the warning, then the limit; no single step costs enough to skip the
        warning."""
        run = self._run("spender", "spender", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        for index in range(8):
            run.step(
                at_s + index * 0.1,
                at_s + index * 0.1 + 0.05,
                root,
                starts=False,
                # Three steps pass the warning at 0.50, five the limit at 1.00.
                cost_nanos=200_000_001,
            )
        run.end(root, at_s, at_s + 1, kind="agent", name="answer")
        run.truth.findings["run-cost", ""] = Expected(firing=2)
        run.truth.commands = 1

    def ignored(self, at_s: float) -> None:
        """A tool fails and the run ends well all the same."""
        run = self._run("ignored", "worker", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        run.step(
            at_s + 0.1,
            at_s + 0.2,
            root,
            starts=True,
            kind="tool_call",
            tool="refund",
            status="error",
        )
        run.step(at_s + 0.3, at_s + 0.4, root, starts=False)
        run.end(root, at_s, at_s + 0.6, kind="agent", name="answer")
        run.truth.findings["tool-error-ignored", "refund"] = Expected()

    def _long(self, at_s: float) -> None:
        """Open from the beginning to the end of the load, a step every other second."""
        run = self._run("long", "worker", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        end_s = max(self.shape.seconds - 2, at_s + 1)
        now_s = at_s + self._rng.uniform(0.1, 1)
        while now_s < end_s - 1:
            run.step(now_s, now_s + 0.4, root, starts=True)
            now_s += self._rng.uniform(1.0, 2.0)
        run.end(root, at_s, end_s, kind="agent", name="answer")

    def _giant(self, at_s: float) -> None:
        """More steps than a trajectory's path can hold."""
        run = self._run("giant", "worker", 0.0)
        root = run.start(at_s, kind="agent", name="answer")
        span_s = max(1.0, self.shape.seconds - 6)
        # Spread over the whole load, so that the run is open during every fault.
        for index in range(self.shape.giant_steps):
            begin_s = at_s + span_s * index / self.shape.giant_steps
            run.step(begin_s, begin_s + 0.02, root, starts=index % 3 == 0)
        run.end(root, at_s, at_s + span_s, kind="agent", name="answer")

    # -- disturbances --

    def _disturb(self) -> None:
        """Duplicates at any later time, records on wrong partitions, and records that are no
        steps."""
        rng, shape = self._rng, self.shape
        for record in list(self.records):
            # Half of them soon, as a producer retries; half after the run was closed.
            if rng.random() < shape.duplicate_share:
                at_s = record.at_s + (
                    rng.uniform(0, 1) if rng.random() < 0.5 else rng.uniform(2, shape.tail_s)
                )
                self._add(at_s, record.key, record.value)
                self.truth.duplicates += 1
            if rng.random() < shape.garbage_share:
                self._add(
                    record.at_s,
                    record.key,
                    rng.choice((b"not json", b"", b'{"trace_id": "x"}', b"[1, 2]")),
                )
                self.truth.rejected += 1
            species = self.truth.runs[record.key.decode()].species
            if (
                self._partitions > 1
                and species == "ends_only"
                and rng.random() < shape.misrouted_share
            ):
                # Alone in runs without starts: where a start is known, a detour through a partition
                # whose worker is down leaves a step open for as long, and no worker can know
                # better.
                right = partition_for(record.key, self._partitions)
                record.partition = (
                    right + 1 + rng.randrange(self._partitions - 1)
                ) % self._partitions
                self.truth.misrouted += 1

    def _run(self, species: str, agent: str, disorder_s: float) -> RunBuilder:
        trace_id = f"{self._rng.getrandbits(128) | 1:032x}"
        truth = self.truth.runs[trace_id] = RunTruth(trace_id, species, agent)
        return RunBuilder(truth, self._rng, self._start_us, self._add, disorder_s)

    def _add(self, at_s: float, key: bytes, value: bytes) -> None:
        self.records.append(Planned(at_s, len(self.records), key, value))


class RunBuilder:
    """Writes one run's records, and with each the expected result to its truth."""

    def __init__(
        self,
        truth: RunTruth,
        rng: random.Random,
        start_us: int,
        add: Callable[[float, bytes, bytes], None],
        disorder_s: float,
    ) -> None:
        self.truth = truth
        self.agent = truth.agent
        self.root = ""
        self._rng = rng
        self._start_us = start_us
        self._add = add
        self._disorder_s = disorder_s

    def new_id(self) -> str:
        """An id for a step."""
        return f"{self._rng.getrandbits(64) | 1:016x}"

    def start(self, at_s: float, parent: str = "", **more: Any) -> str:
        """A step begins; returns its id."""
        step_id = self.new_id()
        self.root = self.root or step_id
        self._record("start", step_id, parent, at_s, None, at_s, more)
        self.truth.parents[step_id] = parent
        return step_id

    def step(  # noqa: PLR0913 the fields of a step
        self,
        begin_s: float,
        end_s: float,
        parent: str,
        *,
        starts: bool,
        cost_nanos: int | None = None,
        status: str = "ok",
        kind: str = "llm_call",
        tool: str = "",
        deliver_s: float | None = None,
    ) -> str:
        """A step from beginning to end; returns its id."""
        about = {"kind": kind, "name": tool or f"step-{self._rng.randrange(5)}", "tool": tool}
        step_id = self.start(begin_s, parent, **about) if starts else self.new_id()
        nanos = self._rng.randrange(3_000_000) if cost_nanos is None else cost_nanos
        more = {
            **about,
            "cost_usd": f"{nanos / 1e9:.9f}",
            "status": status,
            "error_type": "Timeout" if status == "error" else "",
        }
        tokens = {
            "input_tokens": self._rng.randrange(2_000),
            "output_tokens": self._rng.randrange(500),
        }
        self.end(
            step_id,
            begin_s,
            end_s,
            parent,
            deliver_s=deliver_s,
            cost_nanos=nanos,
            usage=tokens,
            **more,
        )
        return step_id

    def end(
        self,
        step_id: str,
        begin_s: float,
        end_s: float,
        parent: str = "",
        *,
        deliver_s: float | None = None,
        cost_nanos: int = 0,
        **more: Any,
    ) -> None:
        """A step ends."""
        self._record(
            "end", step_id, parent, begin_s, end_s, end_s if deliver_s is None else deliver_s, more
        )
        self.truth.parents[step_id] = parent
        tokens = more.get("usage", {})
        self.truth.ended[step_id] = Ended(
            self.agent,
            self._us(end_s),
            cost_nanos,
            tokens.get("input_tokens", 0),
            tokens.get("output_tokens", 0),
            more.get("status", "ok"),
        )

    def _record(  # noqa: PLR0917 the parts of a record in their order
        self,
        phase: str,
        step_id: str,
        parent: str,
        begin_s: float,
        end_s: float | None,
        due_s: float,
        more: dict[str, Any],
    ) -> None:
        event: dict[str, Any] = {
            "trace_id": self.truth.trace_id,
            "step_id": step_id,
            "parent_step_id": parent,
            "phase": phase,
            "project": f"project-{int(self.truth.trace_id[-2:], 16) % 5}",
            "agent": self.agent,
            "start_time": self._us(begin_s),
            **more,
        }
        if end_s is not None:
            event["end_time"] = self._us(end_s)
        self.truth.records.add((step_id, phase))
        due_s += self._rng.uniform(0, self._disorder_s) if self._disorder_s else 0.0
        self._add(due_s, self.truth.trace_id.encode(), msgspec.json.encode(event))

    def _us(self, at_s: float) -> int:
        return self._start_us + round(at_s * 1_000_000)


SPECIES: dict[str, tuple[float, Callable[[Plan, float], Any]]] = {
    "plain": (50, Plan.plain),
    "shuffled": (12, Plan.shuffled),
    "punctual": (10, Plan.punctual),
    "late": (6, Plan.late),
    "ends_only": (6, Plan.ends_only),
    "rootless": (3, Plan.rootless),
    "agentless": (3, Plan.agentless),
    "unended_child": (3, Plan.unended_child),
    "unended_root": (1, Plan.unended_root),
    "slow": (2, Plan.slow),
    "spender": (2, Plan.spender),
    "ignored": (2, Plan.ignored),
}


class Sender(threading.Thread):
    """Sends a plan in its own time; ``wait`` returns when Kafka has acknowledged everything."""

    def __init__(self, settings: Settings, plan: Plan, began: float) -> None:
        super().__init__(name="load", daemon=True)
        self._topic = topic(settings.topic_prefix, "steps")
        self._plan = plan
        self._began = began
        # A frozen broker must not hold a partition's records back for a minute, librdkafka's
        # default.
        self._producer: Producer = producer(
            settings,
            # Ten minutes: what was planned has to arrive, however long no broker answers.
            **{"linger.ms": 10, "message.timeout.ms": 600_000, "socket.timeout.ms": 10_000},
        )
        self.failed: list[str] = []

    def run(self) -> None:
        for record in self._plan.records:
            while (wait_s := self._began + record.at_s - time.monotonic()) > 0:
                self._producer.poll(min(wait_s, 0.05))
            self._send(record)
        while self._producer.flush(5):
            pass

    def wait(self, timeout_s: float) -> None:
        """Wait until all is sent and acknowledged."""
        self.join(timeout_s)
        assert not self.is_alive(), "the load could not be sent"
        assert not self.failed, self.failed[:3]

    def _send(self, record: Planned) -> None:
        more: dict[str, Any] = {} if record.partition < 0 else {"partition": record.partition}
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    headers=list(RECORD_HEADERS),
                    on_delivery=self._delivered,
                    **more,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is None:
            self._plan.truth.delivered += 1
            self._note_append(message)
        else:
            self.failed.append(str(error))

    def _note_append(self, message: Any) -> None:
        run = self._plan.truth.runs[message.key().decode()]
        append_ms = message.timestamp()[1]
        if run.first_ms and append_ms >= run.first_ms:
            return
        with contextlib.suppress(msgspec.MsgspecError):  # garbage under a run's key
            own = _decode_times(message.value() or b"")
            run.appended(append_ms, own.end_time or own.start_time)


class _Times(msgspec.Struct):
    start_time: int
    end_time: int = 0


_decode_times = msgspec.json.Decoder(_Times).decode


def apply_policies(settings: Settings) -> None:
    """Put the policies of the load on the config topic."""
    client = producer(settings)
    for document in POLICIES:
        policy = Policy.model_validate(document)
        client.produce(
            topic(settings.topic_prefix, "config"),
            policy.model_dump_json().encode(),
            document_key(policy).encode(),
        )
    assert client.flush(20) == 0
