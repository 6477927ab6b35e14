"""An agent whose prompts and tools are a release: it follows promotions without a restart.

Next to a `stepstream up`, in the project's folder:

    stepstream build examples/support_release --publish
    stepstream promote support@v1
    python examples/use_a_release.py

Change a prompt, build it with `--version v2 --publish`, then compare, promote and roll back:

    stepstream diff support@v1 support@v2
    stepstream promote support@v2
    stepstream rollback support
"""

from __future__ import annotations

import sys
import time

import stepstream

ORDERS = [{"id": 7, "state": "shipped"}, {"id": 8, "state": "waiting for payment"}]


def answer(release: stepstream.AgentRelease, question: str) -> str:
    """Answer one question with the release that is promoted now."""
    with stepstream.run("support", task="order_status", input=question) as run:
        # Template syntax in a question is text: nothing that a customer writes is evaluated.
        prompt = release.prompt("answer", question=question, orders=ORDERS)
        model = release.model_for("answer")
        with run.llm(
            "answer", model=model["name"], provider=model["provider"], input=prompt
        ) as step:
            # A real client is given `messages=[prompt]` and `tools=release.tools_for("openai")`.
            step.set_output("Order 7 is shipped.")
            step.set_usage(input_tokens=len(prompt) // 4, output_tokens=6)
        run.set_output("Order 7 is shipped.")
        return f"{release.version} {release.hash[:12]} answered in run {run.trace_id}"


def main(questions: int) -> None:
    """Answer questions; with more than one, a second apart."""
    release = stepstream.release("support", follow=True, wait_s=60)
    for number in range(questions):
        print(answer(release, "Where is order 7? {{ 7 * 7 }}"), flush=True)
        if number + 1 < questions:
            time.sleep(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
