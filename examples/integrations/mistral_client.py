"""Mistral's client: every call is recorded.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install mistralai` and MISTRAL_API_KEY.
"""

from __future__ import annotations

import os

from mistralai.client import Mistral

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        server = os.environ.get("MISTRAL_SERVER_URL")
        with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url=server) as client:
            found = client.chat.complete(
                model="mistral-large-latest", messages=[{"role": "user", "content": question}]
            )
        text = str(found.choices[0].message.content)
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
