"""Bedrock by boto3: every call is recorded.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install boto3` and credentials of AWS.
"""

from __future__ import annotations

import boto3

import stepstream

stepstream.instrument()


def answer(question: str) -> str:
    """One run with one call of the model, which `instrument` records."""
    with stepstream.run("support", task="order_status", input=question) as run:
        client = boto3.client("bedrock-runtime", region_name="eu-central-1")
        found = client.converse(
            modelId="anthropic.claude-sonnet-4-5",
            messages=[{"role": "user", "content": [{"text": question}]}],
        )
        text = str(found["output"]["message"]["content"][0]["text"])
        run.set_output(text)
    return text


if __name__ == "__main__":
    print(answer("Where is order 7?"))
