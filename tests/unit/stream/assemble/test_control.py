"""Control steps in the worker: stopped runs, approved budgets, unacknowledged commands."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.schemas.control import control_step_id
from stepstream.schemas.policy import Policy
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state, encode_state
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from tests.support.stream_world import PRICES, START_US, Kafka, Rec, event

TRACE = f"{7:032x}"
POLICY = Policy.model_validate(
    {
        "name": "strict",
        "mode": "enforce",
        "rules": [
            {"rule": "run_cost", "limit_usd": 1, "action": "stop"},
            {"rule": "stop_ignored", "after": "5s"},
        ],
    }
)


class World:
    """One partition with a policy that stops; everything is acknowledged at once."""

    def __init__(self) -> None:
        self.logic = AssemblePartition(
            0,
            1,
            rules=RuleBook((POLICY,), make_detector),
            prices=PRICES,
            limits=AssembleLimits(late_horizon_us=10**12),
        )
        self.kafka = Kafka()
        self.offset = 0
        self.at_s = 0.0

    def send(self, number: int, phase: str, at_s: float, **more: Any) -> None:
        at = START_US + round(at_s * 1e6)
        item = event(TRACE, more.get("step_id", f"{number:016x}"), "", phase, at, at) | more
        item["parent_step_id"] = "" if number == 1 else f"{1:016x}"
        self.logic.process(Rec(self.offset, at // 1000, TRACE.encode(), msgspec.json.encode(item)))
        self.offset += 1
        self.at_s = max(self.at_s, at_s)
        self.settle()

    def control(self, step_id: str, name: str, phase: str, at_s: float, status: str = "ok") -> None:
        self.send(2, phase, at_s, step_id=step_id, kind="control", name=name, status=status)

    def until(self, at_s: float) -> None:
        """Let time pass by seconds: after a jump, timers would wait for producers to catch up."""
        while self.at_s < at_s:
            self.at_s = min(at_s, self.at_s + 1)
            self.logic.tick(START_US + round(self.at_s * 1e6))
            self.settle()

    def settle(self) -> None:
        self.logic.flush()
        outputs: list[Output] = self.logic.take_outputs()
        while outputs:
            for output in outputs:
                self.kafka.deliver(output)
                self.logic.acknowledged(output)
            outputs = self.logic.take_outputs()

    def findings(self, alert: str) -> list[tuple[str, str]]:
        values = self.kafka.values("findings")
        return [(v.get("state", "firing"), v["message"]) for v in values if v["alert"] == alert]

    @property
    def commands(self) -> list[dict[str, Any]]:
        return self.kafka.values("control")

    @property
    def status(self) -> str:
        return str(self.kafka.final()[TRACE]["status"])


def spent(world: World, usd: str, at_s: float, number: int = 9) -> None:
    world.send(number, "end", at_s, cost_usd=usd)


def test_a_run_that_acknowledged_a_stop_is_stopped() -> None:
    """Whatever its root's status is, and only if the command was acknowledged."""
    for status, wanted in (("ok", "stopped"), ("cancelled", "error")):
        world = World()
        world.send(1, "start", 0)
        world.control("a" * 16, "stop", "start", 1)
        world.control("a" * 16, "stop", "end", 1.1, status)
        world.send(1, "end", 1.2, status="error", error_type="RunStopped")
        world.until(10)
        assert world.status == wanted


def test_what_a_person_approves_raises_the_limit() -> None:
    """The run is stopped again when it has used that up too, by another command."""
    world = World()
    world.send(1, "start", 0)
    spent(world, "1.5", 1)
    assert [c["action"] for c in world.commands] == ["stop"]
    world.control(control_step_id(TRACE, world.commands[0]["command_id"]), "stop", "end", 1.1)
    world.control("b" * 16, "approve $5", "end", 2)
    spent(world, "3", 3, 10)
    assert len(world.commands) == 1
    spent(world, "3", 4, 11)
    assert [c["action"] for c in world.commands] == ["stop", "stop"]
    assert len({c["command_id"] for c in world.commands}) == 2
    assert [message for _, message in world.findings("run-cost")][1].startswith(
        "cost $7.50 so far, the limit is $6.00"
    )


def test_a_stop_that_is_not_acknowledged_in_time_is_an_alert() -> None:
    """Of a policy, to an agent that does not listen; reported once."""
    world = World()
    world.send(1, "start", 0)
    spent(world, "2", 1)
    world.until(5.9)
    assert world.findings("stop-ignored") == []
    world.until(6.1)
    # A step after the alert: the run still goes on, which must not make a second one.
    world.send(12, "start", 7)
    world.until(30)
    ((state, message),) = world.findings("stop-ignored")
    assert state == "firing"
    assert message == "a stop command was sent 5.1 s ago and the run has not stopped"


def test_an_order_that_reached_the_run_counts_from_there() -> None:
    """A person's order is known by its step alone; obeying late resolves the alert."""
    world = World()
    world.send(1, "start", 0)
    world.control("a" * 16, "stop", "start", 2)
    world.until(7.5)
    assert [state for state, _ in world.findings("stop-ignored")] == ["firing"]
    # Much later than allowed, but the run has stopped.
    world.control("a" * 16, "stop", "end", 20)
    assert [state for state, _ in world.findings("stop-ignored")] == ["firing", "resolved"]


def test_a_command_that_was_acknowledged_or_came_too_late_makes_no_alert() -> None:
    """Acknowledged in time, or the run had ended by itself."""
    acknowledged = World()
    acknowledged.send(1, "start", 0)
    spent(acknowledged, "2", 1)
    acknowledged.control(
        control_step_id(TRACE, acknowledged.commands[0]["command_id"]), "stop", "end", 2
    )
    acknowledged.until(60)
    over = World()
    over.send(1, "start", 0)
    spent(over, "2", 1)
    over.send(1, "end", 2)
    over.until(60)
    assert acknowledged.findings("stop-ignored") == over.findings("stop-ignored") == []


def test_orders_survive_a_restart() -> None:
    """What was ordered is in the run's state: the next worker waits for the same moment."""
    world = World()
    world.send(1, "start", 0)
    spent(world, "2", 1)
    restored = World()
    active = world.logic.runs[TRACE]
    state = decode_state(encode_state(active.run, active.checkpoint.merged_through))
    restored.logic.restore([state], world.offset)
    restored.offset, restored.at_s = world.offset, world.at_s
    restored.until(5.9)
    assert restored.findings("stop-ignored") == []
    restored.until(30)
    assert len(restored.findings("stop-ignored")) == 1


def test_a_paused_run_does_not_hang() -> None:
    """While an order is open, what waits for it is not reported as a hung step."""
    world = World()
    world.send(1, "start", 0)
    world.control("c" * 16, "pause", "start", 1)
    world.until(800)
    assert world.findings("hung-step") == []
    world.control("c" * 16, "pause", "end", 801)
    world.send(5, "start", 802)
    world.until(1200)
    assert len(world.findings("hung-step")) == 1
