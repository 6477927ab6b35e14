"""What a program says about a step while it is open. Nothing here raises, and nothing counts before start or after end."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from stepstream.producers.checked_fields import nanos_of
from stepstream.producers.error_guard import never_raises
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.opening import Opens
from stepstream.producers.streams import Chunks, Watched
from stepstream.producers.values.content import to_text
from stepstream.producers.values.documents import to_documents
from stepstream.producers.values.failures import message_of, type_of
from stepstream.producers.values.inspection import layout_of
from stepstream.producers.values.plain import label, number_of
from stepstream.producers.values.shortening import size_of
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.normalise import counted
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.usage import (
    DETAILS,
    MAX_USAGE_COUNT,
    TOTALLED,
    TokenUsage,
    TokenUsageStruct,
)

if TYPE_CHECKING:
    from stepstream.producers.engine import Engine
    from stepstream.producers.scope import Scope

T = TypeVar("T")

LABEL_CHARS: Final = 1_024
MESSAGE_CHARS: Final = 8_192
MOST_ATTRIBUTES: Final = 1_000

_COUNTS: Final = (*TOTALLED, *DETAILS)

NEW, OPEN, ENDED, OFF = range(4)
"""States of a step; off: nothing is recorded."""


class Fills(Opens):
    """The part of a step that takes what the program has to say."""

    __slots__ = ("_began_ns", "_chunks", "_engine", "_kind", "_name", "_record", "_scope", "_state")

    _began_ns: int
    _chunks: Chunks | None
    _engine: Engine | None
    _kind: str
    _name: str
    _record: StepRecord
    _scope: Scope
    _state: int

    @never_raises
    def set_input(self, value: object) -> None:
        """What the step works on: text, or anything that becomes JSON. The start event has only what was given on opening."""
        if self._writable("set_input"):
            self._record.input, self._record.input_bytes = self._text(value)

    @never_raises
    def set_output(self, value: object) -> None:
        """What came out: text, or anything that becomes JSON."""
        if self._writable("set_output"):
            self._record.output, self._record.output_bytes = self._text(value)

    @never_raises
    def set_usage(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        input_audio_tokens: int = 0,
        input_image_tokens: int = 0,
        input_video_tokens: int = 0,
        cached_audio_tokens: int = 0,
        cached_image_tokens: int = 0,
        output_audio_tokens: int = 0,
        output_image_tokens: int = 0,
        output_video_tokens: int = 0,
        citation_tokens: int = 0,
        input_characters: int = 0,
        audio_ms: int = 0,
        document_pages: int = 0,
        annotated_pages: int = 0,
        text_messages: int = 0,
        web_searches: int = 0,
        social_searches: int = 0,
        storage_searches: int = 0,
        code_executions: int = 0,
        rerank_searches: int = 0,
        service_tier: str = "",
    ) -> None:
        """The step's own tokens. Input includes cached and cache-written ones, output includes reasoning.

        The counts after these are for what is priced by itself; ``TokenUsage`` says what each of them means. A count that
        cannot be right makes the cost unknown. ``service_tier`` is the tier that the provider charged, e.g. ``batch``.
        """
        if self._writable("set_usage"):
            given = (
                locals()
            )  # the counts are named once, in ``TokenUsage``; a test holds the signature to it
            self._record.usage = usage_from({name: given[name] for name in _COUNTS})
            if service_tier:
                self.set_attribute("service_tier", service_tier)

    @never_raises
    def set_cost(self, usd: Decimal | float | str) -> None:
        """The step's own cost in dollars, where it is known better than from tokens and prices."""
        if self._writable("set_cost"):
            nanos = nanos_of(usd)
            if nanos is None:
                misuse(
                    "set_cost",
                    f"set_cost({shown(usd)}) is ignored: it is no amount of dollars; write set_cost(0.0123)",
                )
                return
            self._record.cost_usd = cast(Decimal, usd_from_nanos(nanos))
            self._record.cost_source = "given"

    @never_raises
    def set_model(self, model: str, provider: str = "") -> None:
        """The model that answered, where it was not known on opening."""
        if self._writable("set_model"):
            self._record.model = label(model, LABEL_CHARS)
            self._record.provider = (
                label("" if provider is None else provider, LABEL_CHARS) or self._record.provider
            )

    @never_raises
    def set_documents(self, documents: Iterable[object]) -> None:
        """What a retrieval returned, best first: ``Document``s, dictionaries, LangChain documents, (document, score), texts."""
        if self._writable("set_documents"):
            made = to_documents(documents, content=self._scope.capture, max_bytes=self._max_bytes)
            if made is None:
                misuse(
                    "set_documents",
                    f"set_documents({shown(documents)}) is ignored: write set_documents([document, ...])",
                )
            else:
                self._record.documents = made

    @never_raises
    def set_attribute(self, key: str, value: object) -> None:
        """One attribute: text, or anything that becomes JSON."""
        self.set_attributes({key: value})

    @never_raises
    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Attributes, added to those there are."""
        if self._writable("set_attributes"):
            if not issubclass(type(attributes), dict):
                given = shown(attributes)
                misuse(
                    "set_attributes",
                    f"set_attributes({given}) is ignored: write set_attributes({{'name': value}})",
                )
                return
            more = {
                label(key, LABEL_CHARS): to_text(value, self._max_bytes)[0]
                for key, value in itertools.islice(
                    dict.items(cast(dict[object, object], attributes)), MOST_ATTRIBUTES
                )
            }
            self._record.attributes = {**self._record.attributes, **more}

    @never_raises
    def set_error(self, error: BaseException | str, error_type: str = "") -> None:
        """Mark the step as failed although no exception leaves it."""
        if self._writable("set_error"):
            self._record.status = "error"
            given = label(error_type, LABEL_CHARS)
            if issubclass(type(error), BaseException):
                self._record.error_type = given or type_of(cast(BaseException, error))
                self._record.error_message = message_of(cast(BaseException, error))
            else:
                self._record.error_type = given
                self._record.error_message = label(error, MESSAGE_CHARS)

    @never_raises
    def record_first_token(self) -> None:
        """A streamed answer has begun to arrive. Counts once."""
        if self._writable("record_first_token") and self._record.first_token_time is None:
            self._record.first_token_time = self._now_us()

    @never_raises
    def record_response(self, response: object) -> None:
        """Take text, tool calls, usage, service tier, charge and model from a model's answer, in any of the usual shapes.

        OpenAI (chat, responses, completions, embeddings, images, transcriptions), Anthropic, Google, Bedrock, Cohere, Mistral,
        Ollama, LangChain and LiteLLM, as objects or as dictionaries. Anything else becomes the output as it is.
        """
        if self._writable("record_response"):
            from stepstream.producers.responses.reader import read_response

            answer = None if layout_of(type(response)).opaque else read_response(response)
            if answer is None:
                self.set_output(response)
            else:
                answer.record_on(self)

    def record_stream(self, chunks: Iterable[T] | AsyncIterable[T]) -> Watched[T]:
        """The stream, to be used as before; when it ends, what its pieces made is recorded as by ``record_response``.

        Iterate over it, enter it with ``with`` or ``async with``, close it, use its attributes and methods: it is the
        client's stream, or what a client's stream manager makes on entering. The first piece is the first token. It ends
        when it is exhausted or closed, at the latest with the step: leave it early, and what came until then is recorded.
        """
        if self._chunks is not None:
            self._chunks.finish()
        self._chunks = Chunks(self)
        return Watched(chunks, self._chunks)

    # --- inside ---

    def _now_us(self) -> int:
        assert self._engine is not None
        return self._record.start_time + (self._engine.clock.steady_ns() - self._began_ns) // 1_000

    @property
    def _max_bytes(self) -> int:
        assert self._engine is not None
        return self._engine.settings.max_content_bytes

    def _text(self, value: object) -> tuple[str, int | None]:
        text, size = to_text(value, self._max_bytes)
        if self._scope.capture:
            return text, size
        return "", (size if size is not None or value is None else size_of(text))

    def _writable(self, what: str) -> bool:
        if self._state == OPEN:
            return True
        if self._state != OFF:
            if self._state == NEW:
                when, instead = "before it started", "call it inside `with`, or after start()"
            else:
                when, instead = (
                    "after it ended",
                    "call it before the step ends, or open another step",
                )
            misuse(f"{what} {when}", f"{what} on step {self._name!r} {when} is ignored: {instead}")
        return False


def usage_from(counts: Mapping[str, object]) -> TokenUsage:
    """Usage of counts as a program gave them; one that cannot be right is told of, and makes the usage incomplete."""
    known: dict[str, Any] = {}
    for name, given in counts.items():
        if given is None:
            continue
        if type(given) is int and 0 <= given <= MAX_USAGE_COUNT:
            if given:
                known[name] = given
            continue
        number = given if type(given) is int else number_of(given)
        made = counted(int(number) if number is not None and number == number // 1 else None)
        known[name] = made.number
        if made.lost:
            known["incomplete"] = True
            misuse(
                f"set_usage {name}",
                f"set_usage({name}={shown(given)}) is left out: write a number of tokens, {name}=900",
            )
    return TokenUsageStruct(**known)
