"""What comes out of a step piece by piece: passed on as it comes, kept within bounds, recorded when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from stepstream.producers.guard import never_raises

if TYPE_CHECKING:
    from stepstream.producers.filling import Fills

T = TypeVar("T")

MOST_CHUNKS: Final = 20_000


class Chunks:
    """The pieces of one step's output. ``finish`` records what they make, once."""

    def __init__(self, step: Fills) -> None:
        self._step = step
        self._chunks: list[Any] = []
        self._left_out = 0
        self._finished = False
        self._chars = 0

    @never_raises
    def add(self, chunk: Any) -> None:
        """One more piece; the first is the first token."""
        if not self._chunks:
            self._step.record_first_token()
        if isinstance(chunk, str):
            self._chars += len(chunk)
        if len(self._chunks) < MOST_CHUNKS and self._chars <= self._step._max_bytes * 2 + MOST_CHUNKS:
            self._chunks.append(chunk)
        else:
            self._left_out += 1

    @never_raises
    def finish(self) -> None:
        """Record the output."""
        if self._finished:
            return
        self._finished = True
        step, chunks = self._step, self._chunks
        if not chunks or not step._writable("stream"):
            return
        if all(isinstance(chunk, str) for chunk in chunks):
            step.set_output("".join(chunks))
        elif step._kind == "llm_call":
            self._record_answer(step, chunks)
        else:
            step.set_output(chunks)
        if self._left_out:
            step.set_attribute("chunks_left_out", self._left_out)

    def _record_answer(self, step: Fills, chunks: list[Any]) -> None:
        from stepstream.producers.response_streams import read_stream

        answer = read_stream(chunks)
        if answer is None:
            step.set_output(chunks)
        else:
            answer.record_on(step)


class Watched(Generic[T]):
    """An iterable or asynchronous iterable that passes its pieces on and records them on a step."""

    def __init__(self, source: Any, chunks: Chunks) -> None:
        self._source = source
        self._chunks = chunks

    def __iter__(self) -> Iterator[T]:
        try:
            for chunk in self._source:
                self._chunks.add(chunk)
                yield chunk
        finally:
            self._chunks.finish()

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            async for chunk in self._source:
                self._chunks.add(chunk)
                yield chunk
        finally:
            self._chunks.finish()
