"""A first traced run: one agent, one model call, one tool.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
"""

from __future__ import annotations

import stepstream

ORDERS = {7: "shipped", 8: "waiting for payment"}


@stepstream.tool
def lookup_order(order: int) -> dict[str, object]:
    """Decorated: every call is a step with the arguments as input and the result as output."""
    return {"order": order, "state": ORDERS[order]}


def answer(question: str) -> str:
    """Answer a customer's question about an order. Stands for an agent of your own."""
    with stepstream.run("support", task="order_status", input=question) as run:
        # With a real model client, `step.record_response(response)` records all of this.
        with run.llm("plan", model="gpt-4o", provider="openai", input=question) as step:
            step.set_output("call lookup_order(7)")
            step.set_usage(input_tokens=900, output_tokens=40)
        found = lookup_order(7)
        text = f"Your order is {found['state']}."
        run.set_output(text)
        print(f"run {run.trace_id}")
    return text


if __name__ == "__main__":
    print(answer("Where is my order?"))
