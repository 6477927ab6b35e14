"""What guardrails cost a step in the agent's thread: CPU time, with and without them in turns.

Each round records the same tool call several thousand times: without guardrails, with some that are
for other tools, and with those of each check that let the call pass. The difference to the round
without them is what guardrails cost; the least of several rounds counts.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks import harness
from benchmarks.harness import Goal, Report
from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.guardrails import GuardedPolicy
from stepstream.schemas.settings import Settings

GOAL_US: Final = 20.0
ARGUMENTS: Final = {"order": 7, "usd": 12.5, "reason": "damaged on arrival", "items": ["a", "b"]}
SCHEMA: Final = {
    "type": "object",
    "required": ["order", "usd"],
    "properties": {
        "order": {"type": "integer"},
        "usd": {"type": "number", "minimum": 0, "maximum": 500},
        "reason": {"type": "string", "maxLength": 200},
        "items": {"type": "array", "items": {"type": "string"}},
    },
}
_TOOLS: Final = {"tools": ["refund"]}
_CHECKS: Final[dict[str, dict[str, Any]]] = {
    "forbidden": {"check": "forbidden", "tools": ["delete_*"]},
    "arguments": {"check": "arguments", "schema": SCHEMA, **_TOOLS},
    "expr": {"check": "expr", "when": "args.usd > 100 && args.order != 3", **_TOOLS},
    "approval": {"check": "approval", "when": "args.usd > 100", **_TOOLS},
    "budget_left": {"check": "budget_left", "usd": 0.05, **_TOOLS},
}
_NO_GUARDRAILS: Final = "none"


def guardrail_sets() -> dict[str, list[dict[str, Any]]]:
    """What is measured: by name, the guardrails in force."""
    alone = {name: [{"name": "g", **check}] for name, check in _CHECKS.items()}
    every = [{"name": f"g-{name}", **check} for name, check in _CHECKS.items()]
    return {_NO_GUARDRAILS: [], **alone, "all five": every}


def cost_ns(tracer: Tracer, guardrails: Sequence[dict[str, Any]], steps: int) -> float:
    """CPU nanoseconds of this thread for one step with these guardrails."""
    engine = tracer.engine()
    assert engine is not None
    policy = GuardedPolicy.model_validate(
        {"name": "p", "mode": "enforce", "guardrails": list(guardrails)}
    )
    engine.guardrails.put_in_force([policy] if guardrails else [], "endpoint")
    guarding.is_on = bool(guardrails)
    with tracer.run() as run:
        with run.tool("refund", input=ARGUMENTS):  # selects the guardrails
            pass
        gc.collect()
        began = time.thread_time_ns()
        for _ in range(steps):
            with run.tool("refund", input=ARGUMENTS):
                pass
        used = time.thread_time_ns() - began
    tracer.flush(60)
    guarding.is_on = False
    return used / steps


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """The figures of all sets, in interleaved rounds."""
    rounds, steps = (3, 1_000) if report.quick else (arguments.rounds, 5_000)
    settings = Settings(project="p", agent="a", quiet=True, queue_events=10 * steps)
    transport = MemoryTransport()
    tracer = Tracer(settings, transport=transport)
    least: dict[str, float] = {}
    for _ in range(rounds):
        for name, guardrails in guardrail_sets().items():
            found = cost_ns(tracer, guardrails, steps)
            least[name] = min(found, least.get(name, found))
            transport.records.clear()
    tracer.close(1)
    without = least.pop(_NO_GUARDRAILS)
    rows = [(name, (found - without) / 1_000) for name, found in least.items()]
    columns = ("guardrails", "CPU us a step more")
    report.table(f"A step of {without / 1_000:.1f} us without guardrails", columns, rows)
    report.figures |= {f"{name.replace(' ', '_')}_cpu_us": cost for name, cost in rows}
    report.figures["step_cpu_us"] = without / 1_000
    report.goals.append(Goal("guardrails of a step", max(cost for _, cost in rows), GOAL_US, "us"))


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument("--rounds", type=int, default=9, help="rounds, of which the least counts")
    harness.run("guardrails", measure, flags)
