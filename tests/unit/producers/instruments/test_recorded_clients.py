"""Calls of real model clients, recorded against a local provider and replayed without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stepstream
from stepstream.testing import recording
from stepstream.testing.replay import replaying
from tests.support.provider import TEXT, Provider, provider

pytestmark = pytest.mark.filterwarnings("default")

ASKED: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    with provider() as made:
        yield made


def openai_plain(url: str) -> str:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        made = client.chat.completions.create(model="gpt-4o", messages=ASKED)
        return str(made.choices[0].message.content)


def openai_streamed(url: str) -> str:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
        return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def openai_asynchronous(url: str) -> str:
    openai = pytest.importorskip("openai")

    async def ask() -> str:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
            plain = await client.chat.completions.create(model="gpt-4o", messages=ASKED)
            text = str(plain.choices[0].message.content)
            stream = await client.chat.completions.create(
                model="gpt-4o", messages=ASKED, stream=True
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
        return text

    return asyncio.run(ask())


def anthropic_plain(url: str) -> str:
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        made = client.messages.create(model="claude-next", max_tokens=9, messages=ASKED)
        return str(made.content[0].text)


def anthropic_streamed(url: str) -> str:
    anthropic = pytest.importorskip("anthropic")
    asked: Any = {"model": "claude-next", "max_tokens": 9, "messages": ASKED}
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        with client.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        with client.messages.stream(**asked) as stream:
            stream.until_done()
            final = stream.get_final_text()
        with client.messages.stream(**asked) as stream:
            kinds = [event.type for event in stream]
        return f"{text} {message.content[0].text} {message.usage} {final} {kinds}"


def anthropic_asynchronous(url: str) -> str:
    anthropic = pytest.importorskip("anthropic")
    asked: Any = {"model": "claude-next", "max_tokens": 9, "messages": ASKED}

    async def ask() -> str:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
            async with client.messages.stream(**asked) as stream:
                text = "".join([one async for one in stream.text_stream])
                message = await stream.get_final_message()
                await stream.close()
            async with client.messages.stream(**asked) as stream:
                await stream.until_done()
                final = await stream.get_final_text()
        return f"{text} {message.content[0].text} {message.usage} {final}"

    return asyncio.run(ask())


CLIENTS = [
    openai_plain,
    openai_streamed,
    openai_asynchronous,
    anthropic_plain,
    anthropic_streamed,
    anthropic_asynchronous,
]


@pytest.mark.parametrize("ask", CLIENTS)
def test_a_client_is_recorded_and_served(
    ask: Callable[[str], str], served: Provider, tmp_path: Path
) -> None:
    """The answer is an object of the client, so that the agent reads it as it did."""

    @stepstream.agent
    def agent(_question: str) -> str:
        return ask(address[0])

    address = [served.url]
    stepstream.instrument()
    try:
        with recording(recordings=str(tmp_path)) as recorded:
            assert TEXT in agent("q")
        before = len(served.asked)
        address[0] = "http://127.0.0.1:9"  # nothing listens there
        (file,) = tmp_path.iterdir()
        with replaying(file) as replay:
            assert TEXT in agent(replay.input)
        replay.assert_equal()
    finally:
        stepstream.uninstrument()
    assert len(served.asked) == before
    assert replay.recording.gaps == ()
    first, again = recorded.only_run().steps, replay.recorded.only_run().steps
    assert [(one.name, one.output, one.usage) for one in first] == [
        (one.name, one.output, one.usage) for one in again
    ]


def test_a_stream_whose_request_fails_is_recorded_and_served(
    served: Provider, tmp_path: Path
) -> None:
    """The exception comes where it came: at the request, and not while the stream is read."""
    openai = pytest.importorskip("openai")

    async def ask(url: str) -> str:
        async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0) as client:
            try:
                await client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
            except openai.APIConnectionError:
                return "not reached"
        return "reached"

    @stepstream.agent
    def agent(_question: str) -> str:
        return asyncio.run(ask(address[0]))

    address = ["http://127.0.0.1:9"]  # nothing listens there
    stepstream.instrument()
    try:
        with recording(recordings=str(tmp_path)):
            assert agent("q") == "not reached"
        address[0] = f"{served.url}/v1"
        (file,) = tmp_path.iterdir()
        with replaying(file) as replay:
            assert agent(replay.input) == "not reached"
        replay.assert_equal()
    finally:
        stepstream.uninstrument()
