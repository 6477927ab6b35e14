"""One recorded call of a model client: plain, asynchronous or streamed.

The result and the exceptions are the client's. Inside a run that was stopped, or has no budget
left, a call raises ``RunStopped`` or ``BudgetExceeded`` as every step does, and ``StepRefused``
where a guardrail refuses it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from stepstream.producers.engine import EngineSource
from stepstream.producers.guardrails.switch import BODY, guarding
from stepstream.producers.instruments.methods import Method
from stepstream.producers.recordings.boundary import Pieces, outside
from stepstream.producers.sdk_log import internal_error, suppressed
from stepstream.producers.steps import ENDED, Step
from stepstream.producers.streams import ChunkRecorder, RecordedStream
from stepstream.producers.tracer import Tracer

inside: Final[ContextVar[EngineSource | None]] = ContextVar("stepstream_inside_call", default=None)
"""The tracer that records the call that is being made: clients call each other (LiteLLM calls
openai), and one call is one step."""

# Providers that are reached with the client of another one, by the end of the host's name.
_HOSTS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.x.ai": "x-ai",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "generativelanguage.googleapis.com": "google",
    "api.anthropic.com": "anthropic",
}
_NOT_IDENTITY: Final = frozenset(
    {"self", "extra_headers", "timeout", "api_key", "request_options", "http_headers"}
)
_CLOUDS: Final = {"Bedrock": "aws", "Vertex": "google", "Azure": "azure", "Foundry": "azure"}


class Switch:
    """Whether calls are recorded, and by which tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.is_on = False

    def records(self) -> bool:
        """Whether a call that begins now is recorded."""
        return self.is_on and inside.get() is None and not suppressed.get()


class StreamEnd(ChunkRecorder):
    """Records a stream. Its step ends when the stream ends, fails, or is garbage-collected.

    ``pieces`` gets the pieces too, where the run's calls are recorded for a replay.
    """

    _step: Step

    def __init__(self, step: Step, pieces: Pieces | None = None) -> None:
        super().__init__(step)
        self._pieces = pieces

    def add(self, chunk: Any) -> None:
        super().add(chunk)
        if self._pieces is not None:
            self._pieces.piece(chunk)

    @contextmanager
    def entering(self) -> Iterator[None]:
        # Anthropic's `stream` sends its request when the manager that it returns is entered.
        token = inside.set(self._step._tracer)
        try:
            yield
        finally:
            inside.reset(token)

    def fail(self, error: BaseException) -> None:
        if self._pieces is not None:
            self._pieces.failed(error)
            self._pieces = None
        self.finish()
        self._step.end(error)

    def finish(self) -> None:
        if self._pieces is not None:
            self._pieces.returned(None)
            self._pieces = None
        super().finish()
        self._step.end()

    def __del__(self) -> None:
        try:
            self.finish()
        except Exception:  # the interpreter shuts down
            return


class Call:
    """One call, and the step that it is recorded in.

    That is a new step (``is_ours``), or the model step that the program has opened around the call.
    As a context manager it surrounds the client's own method, after ``start`` or ``astart``.
    """

    def __init__(self, step: Step, is_ours: bool, given: dict[str, Any]) -> None:
        """``given`` are the arguments of the call."""
        self.step = step
        self._is_ours = is_ours
        self._given = given
        self.pieces: Pieces | None = None
        # What guardrails decide about the call: on our step, or on one that is never begun.
        self._guarded = step if is_ours else None

    def __enter__(self) -> None:
        self._token = inside.set(self.step._tracer)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if error is not None and self._is_ours:
            self.step.end(error)
        inside.reset(self._token)

    def start(self) -> None:
        """Start the new step, or check the program's own one for a stop or a pause.

        Raises ``RunStopped`` or ``BudgetExceeded`` if the run must not continue, ``StepRefused`` if
        a guardrail refuses the call.
        """
        if guarding.is_on:
            guarded = self._unguarded()
            guarded._pass_guardrails(guarded._find_parent(), self._asked, self._passed())
        if self._is_ours:
            self.step.start()
        else:
            self.step.checkpoint()

    async def astart(self) -> None:
        """As ``start``; waits for the end of a pause without blocking the event loop."""
        if guarding.is_on:
            guarded = self._unguarded()
            await guarded._apass_guardrails(guarded._find_parent(), self._asked, self._passed())
        if self._is_ours:
            await self.step._ready()
            self.step.start()
        else:
            await self.step.acheckpoint()

    @property
    def _asked(self) -> dict[str, Any]:
        """The arguments that guardrails see."""
        return _identity(self._given)

    def _passed(self) -> frozenset[str]:
        """The guardrails that have decided about the program's own step around the call."""
        made = self.step._guard
        return frozenset() if isinstance(made, int) else made.titles

    def _unguarded(self) -> Step:
        """The step that guardrails are evaluated for.

        The program's own step may have begun before its call was known: then it is one that stands
        for the call and never begins.
        """
        if self._guarded is None:
            step = self.step
            model = self._given.get("model") or step._record.model
            self._guarded = step._opening("llm_call", step._name, {"model": model})
        self._guarded._guard = BODY
        return self._guarded

    def arguments(
        self, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the client's method after the guardrails: repaired, or as they are.

        ``names`` are the names of the positional ones.
        """
        better = None if self._guarded is None else self._guarded._repaired()
        if better is None:
            return args, kwargs
        left_out = {name for name in self._asked if name not in better}
        made = [better.pop(name, value) for name, value in zip(names, args, strict=False)]
        kept = {name: value for name, value in kwargs.items() if name not in left_out}
        return (*made, *args[len(names) :]), {**kept, **better}

    def answered(self, response: object) -> None:
        """Record the answer that the client returned, and end the step if it is ours."""
        if self._is_ours:
            self.step.record_response(response)
            self.step.end()
        elif self.step._record.usage is None:
            # Anything that the program itself records on this step afterwards replaces this.
            self.step.record_response(response)

    def streaming(self, stream: Any) -> Any:
        """Returns the stream to hand to the program in place of the client's: one that records, or
        ``stream`` itself if the program records its chunks.
        """
        if self._is_ours:
            return RecordedStream(stream, StreamEnd(self.step, self.pieces))
        return self.step.record_stream(stream) if self.step._chunks is None else stream


def recorded(original: Callable[..., Any], method: Method, switch: Switch) -> Callable[..., Any]:
    """The method with its calls recorded as model steps.

    It raises what ``Call.start`` raises and what the method raises; errors of the recording do not
    reach the caller.
    """
    names = _positional_names(original, method)

    def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def made(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        return functools.partial(original, *args, **kwargs)

    def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        if not switch.records():
            return None
        try:
            return _opened(switch.tracer, method, args, named(args, kwargs))
        except Exception as error:
            internal_error(f"instrument.{method.label}", error)
            return None

    if method.is_async:

        @functools.wraps(original)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            call = opened(args, kwargs)
            if call is None:
                result = original(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            await call.astart()
            with call:
                result = await _amade(call, method, named(args, kwargs), made(args, kwargs))
            return _result(call, method, result, kwargs)

        return acall

    @functools.wraps(original)
    def plain(*args: Any, **kwargs: Any) -> Any:
        call = opened(args, kwargs)
        if call is None:
            return original(*args, **kwargs)
        call.start()
        args, kwargs = call.arguments(names, args, kwargs)
        with call:
            result = _made(call, method, named(args, kwargs), made(args, kwargs))
        return _result(call, method, result, kwargs)

    return plain


def _opened(
    tracer: Tracer, method: Method, args: tuple[Any, ...], given: dict[str, Any]
) -> Call | None:
    around = model_step_around(tracer)
    if around is not None:
        return Call(around, is_ours=False, given=given)
    model = given.get("model")
    return Call(
        tracer.llm(
            method.label,
            model=model if type(model) is str else "",
            provider=_provider(method, args[0] if args and method.owner else None),
            input=_input(method, given),
        ),
        is_ours=True,
        given=given,
    )


def model_step_around(tracer: Tracer) -> Step | None:
    """The open model step that the call is in; None if there is none."""
    step = tracer.current_step()
    while step is not None and step._state == ENDED:
        step = step._outer
    return step if step is not None and step._kind == "llm_call" else None


def _made(call: Call, method: Method, given: dict[str, Any], function: Callable[[], Any]) -> Any:
    """The client's result; recorded or served where runs are."""
    boundary = outside.boundary
    if boundary is None:
        return function()
    if _streams(method, given):
        result, call.pieces = boundary.client_stream(call.step, _identity(given), function)
        return result
    return boundary.call(call.step, _identity(given), function)


async def _amade(
    call: Call, method: Method, given: dict[str, Any], function: Callable[[], Any]
) -> Any:
    """As ``_made``, of a method whose result may have to be awaited."""

    async def made() -> Any:
        result = function()
        return await result if inspect.isawaitable(result) else result

    boundary = outside.boundary
    if boundary is None:
        return await made()
    if _streams(method, given):
        # An asynchronous generator is made without waiting; a coroutine answers with a stream.
        result, call.pieces = boundary.client_stream(call.step, _identity(given), function)
        return await result if inspect.isawaitable(result) else result
    return await boundary.acall(call.step, _identity(given), made)


def _streams(method: Method, given: dict[str, Any]) -> bool:
    return method.streams == "always" or (
        method.streams == "argument" and given.get("stream") is True
    )


def _identity(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that identify a call: neither the client nor how the request is sent."""
    return {name: value for name, value in given.items() if name not in _NOT_IDENTITY}


def _positional_names(original: Callable[..., Any], method: Method) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(original).parameters)
    except (TypeError, ValueError):
        return ("self",) if method.owner else ()


def _input(method: Method, given: dict[str, Any]) -> Any:
    found = next((given[name] for name in method.inputs if given.get(name) is not None), None)
    system = given.get("system") or given.get("instructions")
    if isinstance(system, str | list) and found is not None:
        return {"system": system, method.inputs[0]: found}
    return found


def _provider(method: Method, resource: Any) -> str:
    """The provider that is called: the same client reaches several."""
    if method.provider not in ("openai", "anthropic"):
        return method.provider
    client = getattr(resource, "_client", None)
    named = type(client).__name__
    for word, provider in _CLOUDS.items():
        if word in named:
            return provider
    host = urlsplit(str(getattr(client, "base_url", ""))).hostname or ""
    for end, provider in _HOSTS.items():
        if host == end or host.endswith(f".{end}"):
            return provider
    # An unknown host behind Anthropic's client is a proxy to Anthropic's models. Behind openai's
    # client it may be any provider, because many servers have its API: then it stays empty.
    return "anthropic" if method.provider == "anthropic" else ""


def _result(call: Call, method: Method, result: Any, kwargs: dict[str, Any]) -> Any:
    try:
        raw = _raw_header(kwargs)
        if raw:
            call.answered(_parsed(result) if raw == "true" and not kwargs.get("stream") else None)
        elif method.streams == "always" or (method.streams == "argument" and kwargs.get("stream")):
            return call.streaming(result)
        else:
            call.answered(result)
    except Exception as error:
        internal_error(f"instrument.{method.label}", error)
    return result


def _raw_header(kwargs: dict[str, Any]) -> str:
    """The header that ``with_raw_response`` ("true") and ``with_streaming_response`` ("stream") of
    openai and anthropic set, else empty.

    With it the result of a call is the HTTP response, not the answer.
    """
    headers = kwargs.get("extra_headers")
    return str(headers.get("X-Stainless-Raw-Response", "")) if isinstance(headers, dict) else ""


def _parsed(result: Any) -> Any:
    """The answer in a raw response, whose body has been read; the response keeps it."""
    found = result.parse()
    if inspect.iscoroutine(found):
        # It must not be awaited here, and Python warns of a coroutine that is never awaited.
        found.close()
        return None
    return found
