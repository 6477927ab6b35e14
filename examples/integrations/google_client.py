"""Google's client: every call is recorded.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install google-genai` and GEMINI_API_KEY.
"""

from __future__ import annotations

from google import genai

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        client = genai.Client()
        found = client.models.generate_content(model="gemini-2.5-flash", contents=question)
        text = found.text or ""
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
