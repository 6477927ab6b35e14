"""Anthropic's client, streamed: the step ends with the stream.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install anthropic` and ANTHROPIC_API_KEY.
"""

from __future__ import annotations

from anthropic import Anthropic

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        client = Anthropic()
        with client.messages.stream(
            model="claude-sonnet-4-5",
            max_tokens=200,
            messages=[{"role": "user", "content": question}],
        ) as stream:
            text = "".join(stream.text_stream)
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
