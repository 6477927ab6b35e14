"""An agent for conversations, without a model.

It asks for what is missing, and refunds no order that it cannot see. Its cases are in
examples/refund_scenarios.jsonl, for `stepstream eval run --agent examples.careful_agent:support`.
"""

from __future__ import annotations

import re

import stepstream
from examples.flaky_agent import find_order, refund


def support(message: str, history: list[dict[str, str]]) -> str:
    """Answer one message of a conversation."""
    with stepstream.run("refund", agent="support", agent_version="v3", input=message) as run:
        sent = [one["content"] for one in history if one["role"] == "user"]
        text = _careful_answer(" ".join([*sent, message]))
        run.set_output(text)
    return text


def _careful_answer(messages: str) -> str:
    number = re.search(r"\d+", messages)
    if number is None:
        return "Which order is it?"
    order, later = int(number[0]), "I cannot see the order at the moment; please try again later."
    found: dict[str, object] = {}
    for _ in range(2):
        try:
            found = find_order(order)
            break
        except TimeoutError:
            continue
    amount = found.get("amount")
    if found.get("order") != order or not isinstance(amount, int | float):
        return later
    return refund(order, float(amount))
