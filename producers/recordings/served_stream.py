"""What a replay hands to the program in the place of a client's stream."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final

_TEXT_DELTA: Final = "text_delta"
_LAST_EVENT: Final = "message_stop"


class ServedStream:
    """Stands for a client's stream: iterable in both ways, awaitable, and a context manager.

    It also has what Anthropic's ``messages.stream`` offers besides its events: ``text_stream``,
    ``get_final_message``, ``get_final_text`` and ``until_done``; in an ``async with`` the last
    three are awaited, as the client's are. Another attribute of the client's stream raises
    ``AttributeError``, because only the pieces of a stream are recorded.
    """

    def __init__(self, pieces: Generator[Any, Any, Any]) -> None:
        # The name, and ``__stream__``, are those of the clients' own streams: by them
        # ``producers.streams`` records also the pieces that are read by ``text_stream``.
        self._iterator: Iterator[Any] = self.__stream__(pieces)
        self._is_async = False
        self._last: Any = None

    @staticmethod
    def __stream__(pieces: Generator[Any, Any, Any]) -> Iterator[Any]:
        return pieces

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._last = next(self._iterator)
        return self._last

    def __aiter__(self) -> ServedStream:
        return self

    async def __anext__(self) -> Any:
        for piece in self:
            return piece
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, Any, ServedStream]:
        return self
        yield  # an awaitable that is done at once

    def close(self) -> Any:
        """Drop the pieces that were not read. Awaitable in an ``async with``."""
        self._close()
        return self._answer(None)

    def _close(self) -> None:
        close: Any = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        self._close()

    def __enter__(self) -> ServedStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    async def __aenter__(self) -> ServedStream:
        self._is_async = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    # --- Anthropic's message streams ---

    @property
    def text_stream(self) -> _Texts:
        """The texts of the events, iterable in both ways."""
        return _Texts(self)

    def until_done(self) -> Any:
        """Read the rest."""
        self._read_all()
        return self._answer(None)

    def get_final_message(self) -> Any:
        """The whole message, which the last event has."""
        return self._answer(self._message())

    def get_final_text(self) -> Any:
        """The texts of the whole message."""
        blocks = self._message().content
        return self._answer("".join(one.text for one in blocks if one.type == "text"))

    def _read_all(self) -> None:
        for _ in self:
            pass

    def _message(self) -> Any:
        self._read_all()
        if getattr(self._last, "type", "") != _LAST_EVENT:
            raise AttributeError("the recorded stream has no final message")
        return self._last.message

    def _answer(self, value: Any) -> Any:
        return _awaited(value) if self._is_async else value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a replay serves the pieces of a recorded stream; it has no attribute {name!r}"
        )


class _Texts:
    """The texts of Anthropic's events."""

    def __init__(self, events: ServedStream) -> None:
        self._events = events

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for event in self._events:
            delta: Any = getattr(event, "delta", None)
            if getattr(delta, "type", "") == _TEXT_DELTA:
                return str(delta.text)
        raise StopIteration

    def __aiter__(self) -> _Texts:
        return self

    async def __anext__(self) -> str:
        for text in self:
            return text
        raise StopAsyncIteration


async def _awaited(value: Any) -> Any:
    return value
