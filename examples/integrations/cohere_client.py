"""Cohere's client: every call is recorded.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install cohere` and CO_API_KEY.
"""

from __future__ import annotations

import os

import cohere

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        # The client itself reads the variable only when its package is imported.
        client = cohere.ClientV2(base_url=os.environ.get("CO_API_URL"))
        asked = cohere.UserChatMessageV2(content=question)
        found = client.chat(model="command-a-03-2025", messages=[asked])
        text = "".join(part.text for part in found.message.content or () if part.type == "text")
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
