"""Streamed output of a step: passed on piece by piece, buffered within bounds, recorded at the end.

``RecordedStream`` takes the place of a client's stream: it iterates, is a context manager, closes,
and has every attribute and method of the stream. The recording ends when the stream is exhausted
or closed, or with the step. Leaving a ``for`` loop early does not end it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from stepstream.producers.error_guard import never_raises
from stepstream.producers.forwarding import forwarding_type
from stepstream.producers.responses.streamed import read_stream
from stepstream.producers.step_protocol import TracedStep
from stepstream.producers.values.inspection import field_of, layout_of, mro_of, namespace_of
from stepstream.producers.values.plain import ValueReader, estimate
from stepstream.producers.values.shortening import cut_mark

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

MOST_CHUNKS: Final = 20_000
# Of a longer stream the last pieces are kept as well: they have the token usage and the reason
# why the answer ended.
LAST_CHUNKS: Final = 200
_SLACK_CHARS: Final = 20_000
# The pieces of a model's answer are objects whose text is a small part of them.
_ANSWER_CHARS: Final = 4_000_000
_LAST_CHARS: Final = 2_000


class ChunkRecorder:
    """Buffers the pieces of one step's output. ``finish`` records them as the output, once."""

    def __init__(self, step: TracedStep) -> None:
        self._step = step
        self._finished = False
        self.restart()

    def restart(self) -> None:
        """Drop the pieces so far, because the stream starts again."""
        self._first: list[Any] = []
        self._last: deque[Any] = deque(maxlen=LAST_CHUNKS)
        self._count = 0
        self._texts = 0
        self._chars = 0
        self._kept_chars = 0

    @never_raises
    def add(self, chunk: Any) -> None:
        """Buffer one more piece. The first one sets the time of the first token."""
        if self._finished:
            return
        if not self._count:
            self._step.record_first_token()
        self._count += 1
        most = self._step._max_bytes * 2 + _SLACK_CHARS
        is_text = type(chunk) is str
        if is_text:
            size = len(chunk)
            self._texts += 1
        elif self._step._kind == "llm_call":
            size, most = estimate(chunk), max(most, _ANSWER_CHARS)
        else:
            # Copied as plain data now, because the program may change the object later.
            chunk = ValueReader().plain(chunk, max(_LAST_CHARS, (most - self._kept_chars) // 8))
            size = estimate(chunk)
        self._chars += size
        if self._count <= MOST_CHUNKS and self._kept_chars + size <= most:
            self._kept_chars += size
            self._first.append(chunk)
        elif is_text or size <= _LAST_CHARS:
            self._last.append(chunk[-_LAST_CHARS:] if is_text else chunk)

    def entering(self) -> AbstractContextManager[None]:
        """Surrounds the stream's own ``__enter__`` or ``__aenter__``."""
        return nullcontext()

    def fail(self, error: BaseException) -> None:
        """The stream raised. The program's own step ends with the exception that leaves it."""

    @never_raises
    def finish(self) -> None:
        """Record the output."""
        if self._finished:
            return
        self._finished = True
        step, chunks = self._step, [*self._first, *self._last]
        if not chunks or not step._writable("stream"):
            return
        left_out = self._count - len(chunks)
        if self._texts == self._count:
            text, end = "".join(self._first), "".join(self._last)
            missing = self._chars - len(text) - len(end)
            step.set_output(text + (cut_mark(missing) if missing else "") + end)
        elif step._kind == "llm_call":
            _record_answer(step, chunks)
        else:
            step.set_output(chunks)
        if left_out:
            step.set_attribute("chunks_left_out", left_out)
        self.restart()


def _record_answer(step: TracedStep, chunks: list[Any]) -> None:
    opaque = any(layout_of(type(chunk)).opaque for chunk in chunks)
    answer = None if opaque else read_stream(chunks)
    if answer is None:
        step.set_output(chunks)
    else:
        step._record_answer(answer)


class RecordedStream(Generic[T]):
    """A client's stream, or any iterable or async iterable, whose pieces are recorded on a step.

    A method that the stream lacks, such as ``close``, does nothing here. Exceptions of the stream
    are raised.
    """

    __slots__ = (
        "_stepstream_chunks",
        "_stepstream_own",
        "_stepstream_pieces",
        "_stepstream_source",
    )

    _stepstream_chunks: ChunkRecorder
    _stepstream_own: bool
    _stepstream_pieces: Any
    _stepstream_source: Any

    def __new__(cls, source: Any, chunks: ChunkRecorder) -> RecordedStream[T]:
        return object.__new__(forwarding_type(RecordedStream, type(source), "_stepstream_source"))

    def __init__(self, source: Any, chunks: ChunkRecorder) -> None:
        # Plain attribute assignment would set the attribute on the client's stream.
        put = object.__setattr__
        put(self, "_stepstream_source", source)
        put(self, "_stepstream_chunks", chunks)
        put(self, "_stepstream_own", not _recorded_inside(source, chunks))
        put(self, "_stepstream_pieces", None)

    # --- iteration ---

    def __iter__(self) -> Iterator[T]:
        source = self._stepstream_source
        # A list is iterated from its start each time, a stream continues.
        if type(source) in (list, tuple):
            self._stepstream_chunks.restart()
        return RecordedIterator(iter(source), self._stepstream_chunks, self._stepstream_own)

    def __next__(self) -> T:
        if self._stepstream_pieces is None:
            source = self._stepstream_source
            iterator = source if hasattr(type(source), "__next__") else iter(source)
            object.__setattr__(
                self,
                "_stepstream_pieces",
                RecordedIterator(iterator, self._stepstream_chunks, self._stepstream_own),
            )
        return next(self._stepstream_pieces)  # type: ignore[no-any-return]

    def __aiter__(self) -> AsyncIterator[T]:
        return RecordedAsyncIterator(
            aiter(self._stepstream_source), self._stepstream_chunks, self._stepstream_own
        )

    async def __anext__(self) -> T:
        if self._stepstream_pieces is None:
            source = self._stepstream_source
            iterator = source if hasattr(type(source), "__anext__") else aiter(source)
            object.__setattr__(
                self,
                "_stepstream_pieces",
                RecordedAsyncIterator(iterator, self._stepstream_chunks, self._stepstream_own),
            )
        return await anext(self._stepstream_pieces)

    def __await__(self) -> Generator[Any, None, RecordedStream[T]]:
        result = yield from self._stepstream_source.__await__()
        return RecordedStream(result, self._stepstream_chunks)

    # --- ends ---

    def close(self) -> Any:
        """Close the stream, if it has ``close``. Awaitable if the stream's method is."""
        try:
            close = getattr(self._stepstream_source, "close", None)
            return None if close is None else close()
        finally:
            self._stepstream_chunks.finish()

    async def aclose(self) -> None:
        """Close an async stream, if it has ``aclose`` or ``close``."""
        try:
            source = self._stepstream_source
            close = getattr(source, "aclose", None) or getattr(source, "close", None)
            closing: Any = None if close is None else close()
            if hasattr(type(closing), "__await__"):
                await closing
        finally:
            self._stepstream_chunks.finish()

    def __enter__(self) -> RecordedStream[T]:
        enter = getattr(type(self._stepstream_source), "__enter__", None)
        if enter is None:
            return self
        with self._stepstream_chunks.entering():
            entered = enter(self._stepstream_source)
        return self._stepstream_entered(entered)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        leave = getattr(type(self._stepstream_source), "__exit__", None)
        if leave is None:
            self.close()
            return None
        try:
            return leave(self._stepstream_source, kind, error, traceback)  # type: ignore[no-any-return]
        finally:
            self._stepstream_chunks.finish()

    async def __aenter__(self) -> RecordedStream[T]:
        enter = getattr(type(self._stepstream_source), "__aenter__", None)
        if enter is None:
            return self
        with self._stepstream_chunks.entering():
            entered = await enter(self._stepstream_source)
        return self._stepstream_entered(entered)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        leave = getattr(type(self._stepstream_source), "__aexit__", None)
        if leave is None:
            await self.aclose()
            return None
        try:
            return await leave(self._stepstream_source, kind, error, traceback)  # type: ignore[no-any-return]
        finally:
            self._stepstream_chunks.finish()

    def _stepstream_entered(self, entered: Any) -> RecordedStream[T]:
        """This object, or the recorded form of the stream that a stream manager returned."""
        # Most streams return themselves on entering; a stream manager returns the stream.
        same = entered is None or entered is self._stepstream_source
        return self if same else RecordedStream(entered, self._stepstream_chunks)

    # --- everything else is passed on to the stream ---

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_stepstream_source"), name)

    def __copy__(self) -> Any:
        return copy.copy(self._stepstream_source)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._stepstream_source, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._stepstream_source.__reduce_ex__(protocol)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._stepstream_source, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._stepstream_source, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *dir(self._stepstream_source)})

    def __repr__(self) -> str:
        return repr(self._stepstream_source)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The stream's class, so that ``isinstance`` checks of programs and frameworks hold."""
        return type(self._stepstream_source)


class RecordedIterator(Iterator[T]):
    """An iterator that records its pieces (if ``own``) and its end; the rest is passed on."""

    def __init__(self, iterator: Any, chunks: ChunkRecorder, own: bool = True) -> None:
        self._iterator = iterator
        self._chunks = chunks
        self._own = own

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            piece: T = next(self._iterator)
        except StopIteration:
            self._chunks.finish()
            raise
        except BaseException as error:
            self._chunks.fail(error)
            raise
        if self._own:
            self._chunks.add(piece)
        return piece

    def close(self) -> None:
        """Close the iterator, if it can be closed."""
        close = getattr(self._iterator, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._chunks.finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


class RecordedAsyncIterator(AsyncIterator[T]):
    """As ``RecordedIterator``, for an async iterator."""

    def __init__(self, iterator: Any, chunks: ChunkRecorder, own: bool = True) -> None:
        self._iterator = iterator
        self._chunks = chunks
        self._own = own

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            piece: T = await anext(self._iterator)
        except StopAsyncIteration:
            self._chunks.finish()
            raise
        except BaseException as error:
            self._chunks.fail(error)
            raise
        if self._own:
            self._chunks.add(piece)
        return piece

    async def aclose(self) -> None:
        """Close the iterator, if it can be closed."""
        close = getattr(self._iterator, "aclose", None)
        try:
            if close is not None:
                await close()
        finally:
            self._chunks.finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


def _recorded_inside(source: Any, chunks: ChunkRecorder) -> bool:
    """Record the pieces inside the stream, where its helper methods read them.

    Returns False if that is not possible. The streams of openai, anthropic and clients generated
    with the same generator keep an iterator made by ``__stream__``. Their ``text_stream``,
    ``until_done`` and ``get_final_...`` consume it without passing the pieces to the caller.
    """
    iterator = field_of(source, "_iterator")
    if iterator is None or not any(
        "__stream__" in namespace_of(base) for base in mro_of(type(source))
    ):
        return False
    if isinstance(iterator, RecordedIterator | RecordedAsyncIterator):
        return False
    try:
        made: Any = (
            RecordedAsyncIterator if hasattr(type(iterator), "__anext__") else RecordedIterator
        )
        source._iterator = made(iterator, chunks)
    except Exception:
        return False
    return True
