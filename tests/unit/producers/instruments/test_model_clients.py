"""``instrument`` with the real client packages, against a local stand-in of their providers."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stepstream.otel import SpanProcessor
from stepstream.producers.control.budget import Budget
from stepstream.producers.exceptions import BudgetExceeded, StepRefused
from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.instruments.instruments import Instruments
from stepstream.schemas.guardrails import GuardedPolicy
from stepstream.schemas.step import StepEvent
from tests.support.provider import TEXT, TEXTS, Provider, provider
from tests.support.sdk import Traced, instrumented, logged, own_tracer_provider, traced

pytestmark = pytest.mark.filterwarnings("default")

ASKED: list[Any] = [{"role": "user", "content": "hi"}]
# Clients that close their connections when they are dropped, while a stream is read.
KEPT: list[Any] = []


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def made() -> Iterator[Traced]:
    with instrumented() as made:
        yield made


def only(made: Traced) -> StepEvent:
    """The one ended step."""
    (step,) = made.ended.values()
    return step


def check(step: StepEvent, *, output_tokens: int = 3) -> None:
    """Text, tokens and the question are recorded."""
    assert step.kind == "llm_call"
    assert step.output == TEXT
    assert "hi" in step.input
    assert step.usage is not None
    assert (step.usage.input_tokens, step.usage.output_tokens) == (9, output_tokens)
    assert step.status == "ok"


# --- plain ---


def kept(client: Any) -> Any:
    """A client that is closed after the test."""
    KEPT.append(client)
    return client


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """Close the clients of the test."""
    yield
    clients, KEPT[:] = list(KEPT), []
    for client in clients:
        for name in ("close", "aclose"):
            closing: Any = getattr(client, name, int)()
            if inspect.isawaitable(closing):
                await closing
        if hasattr(client, "aio"):
            await client.aio.aclose()
        if hasattr(client, "__aexit__") and hasattr(client, "sdk_configuration"):
            client.__exit__(None, None, None)
            await client.__aexit__(None, None, None)
    del clients
    gc.collect()


def _openai(url: str) -> Any:
    openai = pytest.importorskip("openai")
    return kept(openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0))


def _anthropic(url: str) -> Any:
    anthropic = pytest.importorskip("anthropic")
    return kept(anthropic.Anthropic(api_key="k", base_url=url, max_retries=0))


def _google(url: str) -> Any:
    genai = pytest.importorskip("google.genai")
    return kept(genai.Client(api_key="k", http_options={"base_url": url}))


def _mistral(url: str) -> Any:
    return kept(pytest.importorskip("mistralai.client").Mistral(api_key="k", server_url=url))


def _cohere(url: str) -> Any:
    cohere, httpx = pytest.importorskip("cohere"), pytest.importorskip("httpx")
    return cohere.ClientV2(api_key="k", base_url=url, httpx_client=kept(httpx.Client()))


def _bedrock(url: str) -> Any:
    boto3 = pytest.importorskip("boto3")
    return kept(boto3.client(
        "bedrock-runtime", region_name="eu-central-1", endpoint_url=url,
        aws_access_key_id="k", aws_secret_access_key="s",
    ))  # fmt: skip


def _litellm(url: str, **more: Any) -> Any:
    litellm = pytest.importorskip("litellm")
    return litellm.completion(
        model="openai/gpt-4o", api_base=f"{url}/v1", api_key="k", messages=ASKED, **more
    )


def _text_of(result: Any) -> str:
    return TEXT if TEXT in str(result) else str(result)


PLAIN: dict[str, Callable[[str], Any]] = {
    "openai chat": lambda url: _openai(url).chat.completions.create(model="gpt-4o", messages=ASKED),
    "openai parse": lambda url: _openai(url).chat.completions.parse(model="gpt-4o", messages=ASKED),
    "openai responses": lambda url: _openai(url).responses.create(model="gpt-4o", input="hi"),
    "openai raw": lambda url: _openai(url)
    .chat.completions.with_raw_response.create(model="gpt-4o", messages=ASKED)
    .parse(),
    "anthropic": lambda url: _anthropic(url).messages.create(
        model="claude-next", max_tokens=9, messages=ASKED
    ),
    "google": lambda url: _google(url).models.generate_content(
        model="gemini-2.5-flash", contents="hi"
    ),
    "mistral": lambda url: _mistral(url).chat.complete(model="mistral-large", messages=ASKED),
    "cohere": lambda url: _cohere(url).chat(model="command-a", messages=ASKED),
    "litellm": _litellm,
    "bedrock converse": lambda url: _bedrock(url).converse(
        modelId="anthropic.claude-next", messages=[{"role": "user", "content": [{"text": "hi"}]}]
    ),
    "bedrock invoke": lambda url: _bedrock(url).invoke_model(
        modelId="anthropic.claude-next", body='{"messages": "hi"}'
    )["body"].read(),
}  # fmt: skip


@pytest.mark.parametrize("client", list(PLAIN))
def test_a_call(client: str, served: Provider, made: Traced) -> None:
    """The client's own result, and one step with text, tokens and model."""
    result = PLAIN[client](served.url)
    assert _text_of(result) == TEXT
    step = only(made)
    check(step)
    assert step.model
    assert step.attributes.get("request_model", step.model)


def test_the_input_has_the_system_s_text(served: Provider, made: Traced) -> None:
    """Anthropic's system prompt is an argument of its own."""
    client = _anthropic(served.url)
    client.messages.create(model="c", max_tokens=9, messages=ASKED, system="be brief")
    assert "be brief" in only(made).input
    assert only(made).provider == "anthropic"


def test_embeddings(served: Provider, made: Traced) -> None:
    _openai(served.url).embeddings.create(
        model="text-embedding-3-small", input="hi", encoding_format="float"
    )
    step = only(made)
    assert (step.output, step.name) == ("1 embedding", "embeddings")
    assert step.usage is not None
    assert step.usage.input_tokens == 9


# --- streamed ---

STREAMED: dict[str, Callable[[str], Any]] = {
    "openai chat": lambda url: _openai(url).chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True
    ),
    "openai responses": lambda url: _openai(url).responses.create(
        model="gpt-4o", input="hi", stream=True
    ),
    "anthropic": lambda url: _anthropic(url).messages.create(
        model="claude-next", max_tokens=9, messages=ASKED, stream=True
    ),
    "google": lambda url: _google(url).models.generate_content_stream(
        model="gemini-2.5-flash", contents="hi"
    ),
    "mistral": lambda url: _mistral(url).chat.stream(model="mistral-large", messages=ASKED),
    "cohere": lambda url: _cohere(url).chat_stream(model="command-a", messages=ASKED),
    "litellm": lambda url: _litellm(url, stream=True, stream_options={"include_usage": True}),
}


@pytest.mark.parametrize("client", list(STREAMED))
def test_a_stream(client: str, served: Provider, made: Traced) -> None:
    """The step ends with the stream, and has its first token, text and counts."""
    pieces = list(STREAMED[client](served.url))
    assert len(pieces) >= len(TEXTS)
    step = only(made)
    check(step)
    assert step.first_token_time is not None


def test_a_stream_that_is_dropped_ends_its_step(served: Provider, made: Traced) -> None:
    stream = STREAMED["openai chat"](served.url)
    next(iter(stream))
    assert made.ended == {}
    del stream
    gc.collect()  # the stream of openai is a cycle
    assert only(made).output == TEXTS[0]


@pytest.mark.parametrize(
    ("client", "final"),
    [("openai chat", "get_final_completion"), ("anthropic", "get_final_message")],
)
def test_stream_managers(client: str, final: str, served: Provider, made: Traced) -> None:
    """``with client...stream() as stream`` and the helpers that read to the end."""
    if client == "anthropic":
        manager = _anthropic(served.url).messages.stream(
            model="claude-next", max_tokens=9, messages=ASKED
        )
    else:
        manager = _openai(served.url).chat.completions.stream(model="gpt-4o", messages=ASKED)
    with manager as stream:
        assert TEXT in str(getattr(stream, final)())
    check(only(made))


# --- asynchronous ---


async def _collected(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


def _async_openai(url: str) -> Any:
    return kept(pytest.importorskip("openai").AsyncOpenAI(api_key="k", base_url=f"{url}/v1"))


def _async_anthropic(url: str) -> Any:
    return kept(pytest.importorskip("anthropic").AsyncAnthropic(api_key="k", base_url=url))


def _acompletion(url: str, **more: Any) -> Any:
    return pytest.importorskip("litellm").acompletion(
        model="openai/gpt-4o", api_base=f"{url}/v1", api_key="k", messages=ASKED, **more
    )


def _async_cohere(url: str) -> Any:
    cohere, httpx = pytest.importorskip("cohere"), pytest.importorskip("httpx")
    return cohere.AsyncClientV2(api_key="k", base_url=url, httpx_client=kept(httpx.AsyncClient()))


ASYNC: dict[str, Callable[[str], Any]] = {
    "openai chat": lambda url: _async_openai(url).chat.completions.create(
        model="gpt-4o", messages=ASKED
    ),
    "openai responses": lambda url: _async_openai(url).responses.create(model="gpt-4o", input="hi"),
    "anthropic": lambda url: _async_anthropic(url).messages.create(
        model="claude-next", max_tokens=9, messages=ASKED
    ),
    "google": lambda url: _google(url).aio.models.generate_content(
        model="gemini-2.5-flash", contents="hi"
    ),
    "mistral": lambda url: _mistral(url).chat.complete_async(model="mistral-large", messages=ASKED),
    "cohere": lambda url: _async_cohere(url).chat(model="command-a", messages=ASKED),
    "litellm": _acompletion,
}
ASYNC_STREAMED: dict[str, Callable[[str], Any]] = {
    "openai chat": lambda url: _async_openai(url).chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True
    ),
    "anthropic": lambda url: _async_anthropic(url).messages.create(
        model="claude-next", max_tokens=9, messages=ASKED, stream=True
    ),
    "google": lambda url: _google(url).aio.models.generate_content_stream(
        model="gemini-2.5-flash", contents="hi"
    ),
    "mistral": lambda url: _mistral(url).chat.stream_async(model="mistral-large", messages=ASKED),
    "litellm": lambda url: _acompletion(url, stream=True, stream_options={"include_usage": True}),
}


@pytest.mark.parametrize("client", list(ASYNC))
async def test_an_asynchronous_call(client: str, served: Provider, made: Traced) -> None:
    assert _text_of(await ASYNC[client](served.url)) == TEXT
    check(only(made))


@pytest.mark.parametrize("client", list(ASYNC_STREAMED))
async def test_an_asynchronous_stream(client: str, served: Provider, made: Traced) -> None:
    assert len(await _collected(await ASYNC_STREAMED[client](served.url))) >= len(TEXTS)
    step = only(made)
    check(step)
    assert step.first_token_time is not None


async def test_an_asynchronous_generator(served: Provider, made: Traced) -> None:
    """Cohere's stream is iterated without being awaited."""
    pieces = await _collected(_async_cohere(served.url).chat_stream(model="c", messages=ASKED))
    assert len(pieces) >= len(TEXTS)
    check(only(made))


async def test_an_asynchronous_stream_manager(served: Provider, made: Traced) -> None:
    manager = _async_anthropic(served.url).messages.stream(
        model="claude-next", max_tokens=9, messages=ASKED
    )
    async with manager as stream:
        assert [text async for text in stream.text_stream] == list(TEXTS)
    check(only(made))


# --- errors, runs, switching ---


def test_exceptions_are_the_client_s(served: Provider, made: Traced) -> None:
    """And the step has failed with it."""
    openai = pytest.importorskip("openai")
    served.status = 400
    try:
        with pytest.raises(openai.BadRequestError, match="refused"):
            PLAIN["openai chat"](served.url)
    finally:
        served.status = 200
    step = only(made)
    assert (step.status, step.error_type) == ("error", "openai.BadRequestError")


def test_wrong_arguments_raise_as_before(served: Provider, made: Traced) -> None:
    with pytest.raises(TypeError):
        _openai(served.url).chat.completions.create()
    assert only(made).status == "error"


def test_calls_are_steps_of_the_current_run(served: Provider, made: Traced) -> None:
    with made.tracer.run("agent"):
        PLAIN["openai chat"](served.url)
    assert made.parents() == {"chat.completions": "agent", "agent": ""}


def test_inside_a_model_step_of_the_program_there_is_one_step(
    served: Provider, made: Traced
) -> None:
    """It gets the answer, unless the program records it by itself."""
    with made.tracer.run("agent"), made.tracer.llm("plan", model="gpt-4o"):
        PLAIN["openai chat"](served.url)
    check_names = set(made.ended)
    assert check_names == {"plan", "agent"}
    plan = made.ended["plan"]
    assert plan.output == TEXT
    assert plan.usage is not None


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("form", ["instrument", "own step"])
def test_spans_that_the_client_makes_do_not_count_twice(
    form: str, is_stream: bool, served: Provider, made: Traced
) -> None:
    """Anthropic's client makes spans as soon as OpenTelemetry has a provider; with a span processor
    of ours they would be runs of their own, with the same usage."""
    client = _anthropic(served.url)
    asked: Any = {"model": "claude-next", "max_tokens": 9, "messages": ASKED}
    tracer = made.tracer
    around = tracer.llm("plan") if form == "own step" else contextlib.nullcontext()
    exported = InMemorySpanExporter()
    with own_tracer_provider():
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SpanProcessor(tracer=tracer))
        provider.add_span_processor(SimpleSpanProcessor(exported))
        trace.set_tracer_provider(provider)
        with tracer.run("agent"), around:
            if is_stream:
                with client.messages.stream(**asked) as stream:
                    assert "".join(stream.text_stream) == TEXT
            else:
                assert client.messages.create(**asked).content[0].text == TEXT
        assert tracer.flush(10)
        with provider.get_tracer("t").start_as_current_span("other"):
            pass
    assert exported.get_finished_spans()[0].name.startswith("anthropic")
    assert set(made.ended) == {"agent", "plan" if form == "own step" else "messages", "other"}


def test_a_budget_stops_calls(served: Provider, made: Traced) -> None:
    """As with every step: an instrumented call is not made when nothing is left."""
    # The stand-in is shared by the tests of the module.
    before = len(served.asked)

    def agent() -> None:
        with made.tracer.run("agent", budget=Budget(steps=1)):
            for _ in range(3):
                PLAIN["openai chat"](served.url)

    with pytest.raises(BudgetExceeded):
        agent()
    assert len(served.asked) == before + 1


def test_uninstrument_restores(served: Provider) -> None:
    """Every method is the package's own again."""
    completions = pytest.importorskip("openai.resources.chat.completions.completions")
    anthropic = pytest.importorskip("anthropic.resources.messages.messages")
    originals = completions.Completions.create, anthropic.Messages.stream
    with traced() as made:
        instruments = Instruments(made.tracer)
        assert {"openai", "anthropic"} <= set(instruments.on(()))
        assert completions.Completions.create is not originals[0]
        instruments.on(("openai",))
        instruments.off()
        assert (completions.Completions.create, anthropic.Messages.stream) == originals
        PLAIN["openai chat"](served.url)
        assert made.events == []


def test_an_unknown_name_is_logged() -> None:
    with traced() as made, logged() as lines:
        instruments = Instruments(made.tracer)
        assert instruments.on(("opnai",)) == ()
        instruments.off()
    assert "opnai" in lines[0].getMessage()


def test_a_package_that_is_imported_later(served: Provider) -> None:
    """Nothing is imported by ``instrument``, and the package keeps its own loader."""
    pytest.importorskip("cohere")
    gone = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("cohere")}
    try:
        with traced() as made:
            instruments = Instruments(made.tracer)
            instruments.on(("cohere",))
            assert "cohere.v2.client" not in sys.modules
            assert _text_of(PLAIN["cohere"](served.url)) == TEXT
            module = sys.modules["cohere.v2.client"]
            assert module.__spec__ is not None
            assert type(module.__spec__.loader).__module__ == "_frozen_importlib_external"
            check(only(made))
            instruments.off()
            assert all("AfterImport" not in type(finder).__name__ for finder in sys.meta_path)
    finally:
        for name in [name for name in sys.modules if name.startswith("cohere")]:
            del sys.modules[name]
        sys.modules.update(gone)


# --- guardrails ---


@pytest.fixture
def guard(made: Traced) -> Iterator[Callable[..., None]]:
    """Puts guardrails in force."""

    def put(*guardrails: dict[str, Any]) -> None:
        engine = made.tracer.engine()
        assert engine is not None
        fields = {"name": "p", "mode": "enforce", "guardrails": guardrails}
        engine.guardrails.put_in_force([GuardedPolicy.model_validate(fields)], "endpoint")

    yield put
    guarding.is_on = False


@pytest.mark.parametrize("around", [False, True])
def test_a_model_that_is_forbidden_is_not_called(
    made: Traced, served: Provider, guard: Callable[..., None], around: bool
) -> None:
    """Also inside a step of the program's own that names no model."""
    guard({"name": "never", "check": "forbidden", "models": ["gpt-*"]})
    client, before = _openai(served.url), len(served.asked)
    with (
        made.tracer.run() as run,
        pytest.raises(StepRefused, match="gpt-4o is refused"),
        run.llm("plan") if around else contextlib.nullcontext(),
    ):
        client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert len(served.asked) == before
    steps = [event for event in made.events if event.kind == "guardrail"]
    assert [step.attributes["model"] for step in steps] == ["gpt-4o"]
    assert all(step.usage is None for step in made.ended.values())


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_arguments_of_a_client_are_repaired(
    made: Traced, served: Provider, guard: Callable[..., None], is_async: bool
) -> None:
    """The request has them, and the step the model that was called."""
    better = {"model": "gpt-4o-mini", "max_tokens": 50}
    rule = {"check": "expr", "when": "args.model == 'gpt-4o'", "action": "repair", "set": better}
    guard({"name": "smaller", "models": ["gpt-4o"], **rule})
    openai = pytest.importorskip("openai")
    with made.tracer.run():
        if is_async:
            client = kept(openai.AsyncOpenAI(api_key="k", base_url=f"{served.url}/v1"))
            await client.chat.completions.create(model="gpt-4o", messages=ASKED)
        else:
            _openai(served.url).chat.completions.create(model="gpt-4o", messages=ASKED)
    (step,) = [event for event in made.ended.values() if event.kind == "guardrail"]
    assert step.attributes["action"] == "repaired"
    assert step.attributes["repaired"] == '{"model":"gpt-4o-mini","max_tokens":50}'
    starts = [event for event in made.events if event.phase == "start" and event.kind == "llm_call"]
    assert [event.model for event in starts] == ["gpt-4o-mini"]
