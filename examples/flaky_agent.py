"""An agent without a model that fails now and then, always the same way for the same seed.

Run it with `stepstream eval run examples/refunds.jsonl --agent examples.flaky_agent:support -n 5`.
`worse` is a version of it with a regression.
"""

from __future__ import annotations

import os
import random
import re

import stepstream

ORDERS = {4711: 129.5, 4712: 15.0, 4713: 80.25}


@stepstream.tool
def find_order(order: int) -> dict[str, object]:
    """The order's amount."""
    return {"order": order, "amount": ORDERS.get(order, 10.0)}


@stepstream.tool
def refund(order: int, amount: float) -> str:
    """Pay the amount back."""
    return f"refunded {amount:.2f} for order {order}"


def support(question: str) -> str:
    """Refund an order; one refund in ten is of a wrong amount."""
    return _answer(question, wrong=0.1, version="v1")


def worse(question: str) -> str:
    """A version with a regression: four refunds in ten are of a wrong amount."""
    return _answer(question, wrong=0.4, version="v2")


def _answer(question: str, wrong: float, version: str) -> str:
    # Each trial has a seed of its own, so that a result can be repeated. What is drawn is recorded
    # with the run's calls, so that a replay does the same without the seed.
    draw = stepstream.recorded(random.Random(os.environ.get("TRIAL_SEED", question)).random)
    with stepstream.run(
        "refund", agent="support", agent_version=version, task="refund", input=question
    ) as run:
        found = re.search(r"\d+", question)
        order = int(found[0]) if found else 0
        amount = float(str(find_order(order)["amount"]))
        if draw() < wrong:
            amount += 1
        text = refund(order, amount)
        run.set_output(text)
    return text
