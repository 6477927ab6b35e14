"""``record_stream`` with the streams of the real client packages, against a local provider.

Packages that are not installed are skipped: litellm, langchain-core and boto3 are large.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepstream.producers.steps import Step
from tests.support.receiver import serving
from tests.support.sdk import Traced, traced

TEXTS = ("Hello", " there", ".")


def _event(data: Any, name: str = "") -> str:
    return (
        f"event: {name}\n" if name else ""
    ) + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def _chat(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
        **more,
    }


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CHAT = "".join(
    [
        *(_event(_chat({"role": "assistant", "content": text})) for text in TEXTS),
        _event(_chat({}, finish_reason="stop")),
        _event({**_chat({}), "choices": [], "usage": USAGE}),
        _event("[DONE]"),
    ]
)


def _response(status: str) -> dict[str, Any]:
    message: Any = {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_text", "text": "".join(TEXTS), "annotations": []}],
    }
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    }
    done = status == "completed"
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o",
        "status": status,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [message] if done else [],
        "usage": usage if done else None,
    }


def _responses() -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response("in_progress")}
    item = {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    part = {"type": "output_text", "text": "", "annotations": []}
    at = {"item_id": "m", "output_index": 0, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": part}
    for text in TEXTS:
        yield {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
    yield {"type": "response.completed", "response": _response("completed")}


RESPONSES = "".join(
    _event({**data, "sequence_number": n}, data["type"]) for n, data in enumerate(_responses())
)


def _messages() -> Iterator[dict[str, Any]]:
    message: Any = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-next",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in TEXTS:
        yield {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        }
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


MESSAGES = "".join(_event(data, data["type"]) for data in _messages())


def _gemini(text: str, **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **more}],
        "modelVersion": "gemini-2.5-flash",
    }


COUNTED = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}
GEMINI = "".join(
    [
        *(_event(_gemini(text)) for text in TEXTS),
        _event({**_gemini("", finishReason="STOP"), "usageMetadata": COUNTED}),
    ]
)
COHERE = "".join(
    [
        _event(
            {
                "type": "message-start",
                "id": "m",
                "delta": {"message": {"role": "assistant", "content": []}},
            }
        ),
        *(
            _event(
                {
                    "type": "content-delta",
                    "index": 0,
                    "delta": {"message": {"content": {"text": text}}},
                }
            )
            for text in TEXTS
        ),
        _event(
            {
                "type": "message-end",
                "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 9}}},
            }
        ),
    ]
)
ANSWERS = {
    "chat/completions": CHAT,
    "v1/responses": RESPONSES,
    "v1/messages": MESSAGES,
    "streamGenerateContent": GEMINI,
    "v2/chat": COHERE,
}


async def _answer(request: Request) -> Response:
    await request.body()
    body = next(answer for path, answer in ANSWERS.items() if path in request.url.path)
    return Response(body, media_type="text/event-stream")


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/{path:path}", _answer, methods=["POST"])])) as url:
        yield url


ASKED: list[Any] = [{"role": "user", "content": "hi"}]
# Opens a stream of one client at an address; what must be closed afterwards goes onto the stack.
Opened = Callable[[str, contextlib.ExitStack], Any]


def _openai(url: str, stack: contextlib.ExitStack) -> Any:
    openai = pytest.importorskip("openai")
    return stack.enter_context(openai.OpenAI(api_key="k", base_url=f"{url}/v1"))


def _anthropic(url: str, stack: contextlib.ExitStack) -> Any:
    anthropic = pytest.importorskip("anthropic")
    return stack.enter_context(anthropic.Anthropic(api_key="k", base_url=url))


def _google(url: str, stack: contextlib.ExitStack) -> Any:
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key="k", http_options={"base_url": url})
    stack.callback(client.close)
    return client


def _mistral(url: str, stack: contextlib.ExitStack) -> Any:
    client = pytest.importorskip("mistralai.client")
    return stack.enter_context(client.Mistral(api_key="k", server_url=url))


def _cohere(url: str, stack: contextlib.ExitStack) -> Any:
    cohere = pytest.importorskip("cohere")
    httpx = pytest.importorskip("httpx")
    return cohere.ClientV2(
        api_key="k", base_url=url, httpx_client=stack.enter_context(httpx.Client())
    )


PLAIN: dict[str, Opened] = {
    "openai chat": lambda url, stack: _openai(url, stack).chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True
    ),
    "openai responses": lambda url, stack: _openai(url, stack).responses.create(
        model="gpt-4o", input="hi", stream=True
    ),
    "anthropic": lambda url, stack: _anthropic(url, stack).messages.create(
        model="claude-next", max_tokens=9, messages=ASKED, stream=True
    ),
    "google": lambda url, stack: _google(url, stack).models.generate_content_stream(
        model="gemini-2.5-flash", contents="hi"
    ),
    "mistral": lambda url, stack: _mistral(url, stack).chat.stream(
        model="mistral-large-latest", messages=ASKED
    ),
    "cohere": lambda url, stack: _cohere(url, stack).chat_stream(model="command-a", messages=ASKED),
}
# Streams that a manager makes on entering, the method that reads to the end, and other names that
# they have.
MANAGERS: dict[str, tuple[Opened, str, tuple[str, ...]]] = {
    "openai chat": (
        lambda url, stack: _openai(url, stack).chat.completions.stream(
            model="gpt-4o", messages=ASKED
        ),
        "get_final_completion",
        ("current_completion_snapshot", "until_done", "close"),
    ),
    "openai responses": (
        lambda url, stack: _openai(url, stack).responses.stream(model="gpt-4o", input="hi"),
        "get_final_response",
        ("until_done", "close"),
    ),
    "anthropic": (
        lambda url, stack: _anthropic(url, stack).messages.stream(
            model="claude-next", max_tokens=9, messages=ASKED
        ),
        "get_final_message",
        ("text_stream", "response", "request_id", "until_done", "get_final_text"),
    ),
}


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


@contextlib.contextmanager
def recorded(made: Traced) -> Iterator[Step]:
    with made.tracer.run(), made.tracer.llm("call", model="gpt-4o") as step:
        yield step


def whole(made: Traced) -> bool:
    """Whether the step has the whole answer:

    its text came from the pieces, in whatever shape they are read.
    """
    output = made.ended["call"].output
    return output == "".join(TEXTS) or all(text in output for text in TEXTS)


@pytest.mark.parametrize("client", list(PLAIN))
def test_iterated(client: str, provider: str, made: Traced) -> None:
    """Every piece arrives, the first is the first token, the answer is recorded."""
    with contextlib.ExitStack() as stack, recorded(made) as step:
        pieces = list(step.record_stream(PLAIN[client](provider, stack)))
    assert len(pieces) >= len(TEXTS)
    assert made.ended["call"].first_token_time is not None
    assert whole(made)


@pytest.mark.parametrize("client", list(PLAIN))
def test_its_names_are_there(client: str, provider: str, made: Traced) -> None:
    """Every public attribute and method of the client's stream is one of the wrapper, and its class
    is the stream's.
    """
    with contextlib.ExitStack() as stack, recorded(made) as step:
        source = PLAIN[client](provider, stack)
        watched = step.record_stream(source)
        names = [name for name in dir(source) if not name.startswith("_")]
        assert set(names) <= set(dir(watched))
        for name in names:
            if name not in ("close", "aclose"):
                assert getattr(watched, name) == getattr(source, name)
        assert isinstance(watched, type(source))
        watched.close()


@pytest.mark.parametrize("client", list(PLAIN))
def test_a_for_that_is_left(client: str, provider: str, made: Traced) -> None:
    """A second ``for`` goes on where the first was left, and all of it is recorded."""
    with contextlib.ExitStack() as stack, recorded(made) as step:
        watched = step.record_stream(PLAIN[client](provider, stack))
        first = []
        for piece in watched:
            first.append(piece)
            break
        rest = list(watched)
    assert len(first) + len(rest) >= len(TEXTS)
    assert whole(made)


@pytest.mark.parametrize("client", list(PLAIN))
@pytest.mark.parametrize("entered", [True, False])
def test_closed_early(client: str, entered: bool, provider: str, made: Traced) -> None:
    """Entered or closed by hand after one piece: what came is recorded, and nothing is raised."""
    with contextlib.ExitStack() as stack, recorded(made) as step:
        watched = step.record_stream(PLAIN[client](provider, stack))
        if entered:
            with watched as inner:
                assert next(iter(inner)) is not None
        else:
            assert next(iter(watched)) is not None
            watched.close()
        assert step._chunks is not None
        assert step._chunks._finished


@pytest.mark.parametrize("client", list(PLAIN))
def test_errors_of_the_program_leave(client: str, provider: str, made: Traced) -> None:
    """What the program raises inside ``with`` is raised."""

    def program(stack: contextlib.ExitStack) -> None:
        with recorded(made) as step, step.record_stream(PLAIN[client](provider, stack)) as watched:
            next(iter(watched))
            raise ZeroDivisionError

    with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
        program(stack)
    assert made.ended["call"].status == "error"


@pytest.mark.parametrize("client", list(MANAGERS))
def test_helper_methods_are_recorded(client: str, provider: str, made: Traced) -> None:
    """A helper that reads the stream to its end by itself:

    its result is the client's, and the answer is recorded.
    """
    open_stream, final, names = MANAGERS[client]
    with (
        contextlib.ExitStack() as stack,
        recorded(made) as step,
        step.record_stream(open_stream(provider, stack)) as stream,
    ):
        assert all(hasattr(stream, name) for name in names if not name.startswith("current"))
        assert getattr(stream, final)() is not None
    assert made.ended["call"].first_token_time is not None
    assert whole(made)


@pytest.mark.parametrize("client", list(MANAGERS))
def test_a_manager_entered_by_the_program(client: str, provider: str, made: Traced) -> None:
    """``record_stream`` around the stream that a manager made."""
    open_stream, final, _ = MANAGERS[client]
    with (
        contextlib.ExitStack() as stack,
        recorded(made) as step,
        open_stream(provider, stack) as stream,
    ):
        for _ in step.record_stream(stream):
            pass
        assert getattr(stream, final)() is not None
    assert whole(made)


def test_text_stream(provider: str, made: Traced) -> None:
    """Anthropic's texts alone; the answer has its tokens all the same."""
    with contextlib.ExitStack() as stack, recorded(made) as step:
        open_stream, _, _ = MANAGERS["anthropic"]
        with step.record_stream(open_stream(provider, stack)) as stream:
            assert "".join(stream.text_stream) == "".join(TEXTS)
            assert stream.get_final_text() == "".join(TEXTS)
    usage = made.ended["call"].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, 3)


async def test_asynchronous_clients(provider: str, made: Traced) -> None:
    """Iteration, ``async with``, ``close`` and helper methods of the asynchronous streams."""
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    async with (
        openai.AsyncOpenAI(api_key="k", base_url=f"{provider}/v1") as chat,
        anthropic.AsyncAnthropic(api_key="k", base_url=provider) as messages,
    ):
        with made.tracer.run():
            with made.tracer.llm("iterated") as step:
                stream = await chat.chat.completions.create(
                    model="gpt-4o", messages=ASKED, stream=True
                )
                assert len([piece async for piece in step.record_stream(stream)]) >= len(TEXTS)
            with made.tracer.llm("awaited") as step:
                asked = chat.chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
                watched: Any = await step.record_stream(asked)
                async for _ in watched:
                    break
                assert len([piece async for piece in watched]) >= len(TEXTS) - 1
            with made.tracer.llm("entered") as step:
                stream = await chat.chat.completions.create(
                    model="gpt-4o", messages=ASKED, stream=True
                )
                async with step.record_stream(stream) as watched:
                    await anext(aiter(watched))
            with made.tracer.llm("closed") as step:
                stream = await chat.chat.completions.create(
                    model="gpt-4o", messages=ASKED, stream=True
                )
                watched = step.record_stream(stream)
                await anext(watched)
                await watched.close()
            with made.tracer.llm("helper") as step:
                asked = messages.messages.stream(model="claude-next", max_tokens=9, messages=ASKED)
                async with step.record_stream(asked) as watched:
                    assert (await watched.get_final_message()).content[0].text == "".join(TEXTS)
            with made.tracer.llm("texts") as step:
                asked = messages.messages.stream(model="claude-next", max_tokens=9, messages=ASKED)
                async with step.record_stream(asked) as watched:
                    assert "".join([text async for text in watched.text_stream]) == "".join(TEXTS)
    for name in ("iterated", "awaited", "helper", "texts"):
        assert made.ended[name].output == "".join(TEXTS), name
    assert made.ended["entered"].output == made.ended["closed"].output == TEXTS[0]


async def test_asynchronous_generators(made: Traced) -> None:
    """Streams without a class of their own, as LangChain's and Google's:

    closed with ``aclose`` and ``async with``.
    """
    closed: list[str] = []

    async def pieces(name: str) -> AsyncIterator[str]:
        try:
            for text in TEXTS:
                yield text
        finally:
            closed.append(name)

    with made.tracer.run():
        for name in ("aclose", "with"):
            with made.tracer.llm(name) as step:
                watched = step.record_stream(pieces(name))
                if name == "with":
                    async with watched:
                        await anext(watched)
                else:
                    await anext(aiter(watched))
                    await watched.aclose()
                    await watched.aclose()
    assert closed == ["aclose", "with"]
    assert made.ended["with"].output == made.ended["aclose"].output == TEXTS[0]


@pytest.mark.filterwarnings("ignore")
def test_litellm(made: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's wrapper, which is its own iterator."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    with recorded(made) as step:
        stream = litellm.completion(
            model="gpt-4o", messages=ASKED, stream=True, mock_response="".join(TEXTS)
        )
        watched = step.record_stream(stream)
        assert next(watched) is not None
        assert list(watched)
        assert watched.model == stream.model
    assert whole(made) or "".join(TEXTS) in made.ended["call"].output


def test_langchain(made: Traced) -> None:
    """LangChain's message chunks, which add up."""
    messages = pytest.importorskip("langchain_core.messages")
    with recorded(made) as step:
        chunks = (messages.AIMessageChunk(content=text) for text in TEXTS)
        assert len(list(step.record_stream(chunks))) == len(TEXTS)
    assert whole(made)


def test_bedrock(made: Traced) -> None:
    """The event stream of boto3: iterable, with ``close``."""
    eventstream = pytest.importorskip("botocore.eventstream")

    class Raw:
        closed = False

        def stream(self) -> Iterator[bytes]:
            return iter(())

        def close(self) -> None:
            self.closed = True

    raw = Raw()
    with recorded(made) as step:
        watched = step.record_stream(eventstream.EventStream(raw, None, None, "ConverseStream"))
        assert list(watched) == []
        watched.close()
    assert raw.closed


def test_a_list_again(made: Traced) -> None:
    """A list is read from its beginning each time, and recorded once."""
    with recorded(made) as step:
        watched = step.record_stream(list(TEXTS))
        for _ in watched:
            break
        assert list(watched) == list(TEXTS)
        assert list(watched) == list(TEXTS)
        with watched:
            pass
    assert made.ended["call"].output == "".join(TEXTS)


def test_a_stream_that_never_ends(made: Traced) -> None:
    """Of very many pieces the first and the last are kept, and the number of missing ones is an
    attribute.
    """
    with made.tracer.run():
        with made.tracer.tool("texts") as step:
            for _ in step.record_stream("abcdefghij" for _ in range(50_000)):
                pass
        with made.tracer.tool("objects") as step:
            for _ in step.record_stream({"n": n, "big": "x" * 1_000} for n in range(2_000)):
                pass
        with made.tracer.llm("model", model="gpt-4o") as step:
            parts = ({"choices": [{"delta": {"content": "w "}}]} for _ in range(30_000))
            used = [{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}]
            for _ in step.record_stream(itertools.chain(parts, used)):
                pass
    assert "characters cut]..." in made.ended["texts"].output
    assert int(made.ended["texts"].attributes["chunks_left_out"]) > 0
    assert json.loads(made.ended["objects"].output)[-1]["n"] == 1_999
    usage = made.ended["model"].usage
    assert usage is not None
    assert usage.input_tokens == 7
