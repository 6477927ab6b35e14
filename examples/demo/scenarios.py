"""The demo's plan: the kinds of runs, how many, when, and which alerts each must raise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from examples.demo.language_model import Temper, Ticket
from examples.demo.shop import GOODS, ORDERS

PROJECT: Final = "shop"
ENVIRONMENT: Final = "demo"
HUNG_AFTER_US: Final = 6_000_000
DEADLINE_US: Final = 6_000_000
STEP_LIMIT_US: Final = 2_500_000
SHORTEST_SECONDS: Final = 15
# No run starts in the last seconds, so that those that started can end.
TAIL_SECONDS: Final = 8

# The policies in force while the fleet works, as a person writes them.
POLICIES: Final = f"""\
# Alerts of this shop. Those for loops, ignored errors and unpriced models are on by default.
kind: Policy
name: shop
match: {{project: {PROJECT}}}
rules:
  - {{alert: too-expensive, rule: run_cost, warn_usd: 0.02, limit_usd: 0.025, severity: critical}}
  - {{rule: hung_step, after: {HUNG_AFTER_US // 1_000}ms}}
---
kind: Policy
name: reports
match: {{project: {PROJECT}, agent: analyst, task: report}}
rules:
  - {{alert: report-too-slow, rule: run_duration, limit: {DEADLINE_US // 1_000}ms}}
  - {{alert: slow-tool, rule: step_duration, kind: tool_call, limit: {STEP_LIMIT_US // 1_000}ms}}
"""


@dataclass(frozen=True)
class Scenario:
    """A kind of run. It must raise exactly ``alerts``.

    ``share`` is its part of the ordinary runs; with share 0 it is a problem and happens ``count``
    times.
    """

    name: str
    task: str
    share: int = 0
    count: int = 0
    temper: Temper = "careful"
    alerts: frozenset[str] = frozenset()
    meaning: str = ""


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario("refund", "refund", share=4),
    Scenario("tracking", "tracking", share=3),
    Scenario("question", "question", share=5),
    Scenario("restock", "restock", share=2),
    Scenario("report", "report", share=2),
    Scenario(
        "retried",
        "refund",
        count=2,
        meaning="the payment service is away once, the second try succeeds",
    ),
    Scenario(
        "failed",
        "tracking",
        count=2,
        meaning="a tool raises and the agent gives up: the run ends with an error",
    ),
    Scenario(
        "ignored",
        "refund",
        count=2,
        temper="hasty",
        alerts=frozenset({"tool-error-ignored"}),
        meaning="the refund fails and the agent promises it all the same",
    ),
    Scenario(
        "looping",
        "question",
        count=2,
        temper="stubborn",
        alerts=frozenset({"loop"}),
        meaning="the same search again and again",
    ),
    Scenario(
        "overspending",
        "question",
        count=2,
        temper="verbose",
        alerts=frozenset({"too-expensive", "repetition"}),
        meaning="every text is sent each time: over ten times the usual cost",
    ),
    Scenario(
        "hanging",
        "restock",
        count=1,
        alerts=frozenset({"hung-step"}),
        meaning="a tool is called and never returns",
    ),
    Scenario(
        "slow",
        "report",
        count=1,
        alerts=frozenset({"report-too-slow", "slow-tool"}),
        meaning="one step takes very long, and the run passes its deadline while it goes on",
    ),
    Scenario(
        "irrelevant",
        "question",
        count=2,
        meaning="nothing relevant is found, and the agent answers all the same",
    ),
    Scenario(
        "unpriced",
        "report",
        count=2,
        alerts=frozenset({"unpriced-model"}),
        meaning="a model that is on no price list",
    ),
)
FOREIGN: Final = Scenario(
    "foreign",
    "import",
    count=1,
    meaning="JSON sent straight to Kafka: out of order, some of it twice, one step late",
)
REPEATED: Final = Scenario(
    "repeated",
    "restock",
    count=1,
    meaning="the task whose executor was killed, by another executor: a run of its own",
)
BY_NAME: Final = {scenario.name: scenario for scenario in (*SCENARIOS, FOREIGN, REPEATED)}


@dataclass(frozen=True)
class Planned:
    """A planned run: its start in seconds after the demo's start, and its ticket."""

    at: float
    ticket: Ticket


def plan(seed: int, seconds: float, runs_per_second: float = 2.0) -> list[Planned]:
    """The planned runs in the order of their start. The same seed gives the same runs."""
    chance = random.Random(seed)
    last = max(1.0, seconds - TAIL_SECONDS)
    ordinary = [scenario for scenario in SCENARIOS if scenario.share]
    names = chance.choices(
        ordinary, [scenario.share for scenario in ordinary], k=round(last * runs_per_second)
    )
    planned = [(chance.uniform(0, last), scenario) for scenario in names]
    for scenario in SCENARIOS:
        # Those with a time limit start first, so that the limit passes before the end.
        latest = 2.0 if scenario.name in ("hanging", "slow") else last
        planned += [(chance.uniform(0.3, latest), scenario) for _ in range(scenario.count)]
    orders = iter(chance.sample(range(1, ORDERS + 1), ORDERS))
    planned.sort(key=lambda one: one[0])
    return [Planned(at, _ticket(scenario, chance, orders.__next__)) for at, scenario in planned]


def _ticket(scenario: Scenario, chance: random.Random, next_order: Callable[[], int]) -> Ticket:
    order = 0
    subject = f"customer-{chance.randint(1, 60)}"
    if scenario.task == "refund":
        order = next_order()
        text = chance.choice(_REFUNDS).format(order=order)
    elif scenario.task == "tracking":
        order = 9_000 + next_order() if scenario.name == "failed" else next_order()
        text = chance.choice(_PARCELS).format(order=order)
    elif scenario.task == "restock":
        subject = chance.choice(GOODS)[0]
        text = f"Is there enough of {subject}? Buy more if not."
    elif scenario.task == "report":
        text = "What sold best, and how much was refunded?"
    else:
        text = chance.choice(_FOREIGN_QUESTIONS if scenario.name == "irrelevant" else _QUESTIONS)
    return Ticket(scenario.name, scenario.task, text, scenario.temper, subject, order)


_REFUNDS: Final = (
    "Please refund order {order}, it arrived broken.",
    "I want my money back for order {order}.",
    "Order {order} is the wrong grinder. Can I get a refund?",
)
_PARCELS: Final = (
    "Where is my parcel? Order {order}.",
    "Order {order} has not arrived yet. Where is it?",
)
_QUESTIONS: Final = (
    "How do I descale my espresso machine?",
    "Which grind do I need for a French press?",
    "Can I pause my bean subscription?",
    "How should I store coffee beans?",
    "How long is the warranty on a grinder?",
    "Do the syrups contain nuts?",
    "How long is a gift voucher valid?",
    "Do cafes get a discount?",
)
_FOREIGN_QUESTIONS: Final = (
    "When should I prune my apple trees?",
    "Is the night train to Lisbon late on Sundays?",
    "Must I declare my greenhouse to the tax office?",
)
