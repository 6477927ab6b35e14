"""OpenAI's client: every call is recorded.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install openai` and OPENAI_API_KEY.
"""

from __future__ import annotations

from openai import OpenAI

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        client = OpenAI()
        found = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": question}]
        )
        text = found.choices[0].message.content or ""
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
