"""How long a connection may wait: for a first request, within its head, and for the next
request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from stepstream.common.web.protocol import Limits, protocol_for

LIMITS = Limits(head_s=10.0, idle_s=300.0)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Timer:
    """What ``call_later`` returns."""

    at: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """An event loop in which time passes when a test advances it."""

    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        self.timers.append(Timer(self.now + delay, lambda: callback(*args)))
        return self.timers[-1]

    def create_task(self, task: Any, **_more: object) -> Any:
        task.close()  # no application runs here
        return Task()

    def pass_time(self, seconds: float) -> None:
        """Run the timers that are due until then."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


class Task:
    """A task that never ends."""

    def add_done_callback(self, _callback: object) -> None: ...


class Transport:
    """A connection that remembers whether it was closed."""

    def __init__(self) -> None:
        self.is_open = True

    def abort(self) -> None:
        self.is_open = False

    def close(self) -> None:
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open

    def get_extra_info(self, _name: str) -> None:
        return None

    def write(self, _data: bytes) -> None: ...


class Connection:
    """One connection to a server with ``LIMITS``."""

    def __init__(self) -> None:
        self.loop, self.transport = Loop(), Transport()
        config = uvicorn.Config(PlainTextResponse("x"), lifespan="off", log_config=None)
        made = protocol_for(LIMITS)(config, ServerState(), {}, _loop=self.loop)  # type: ignore[arg-type]
        made.connection_made(self.transport)  # type: ignore[arg-type]
        self.receive = made.data_received

    def after(self, seconds: float) -> bool:
        """Whether it is open so much later."""
        self.loop.pass_time(seconds)
        return self.transport.is_open


def test_a_connection_without_a_request_is_closed() -> None:
    """After the time that a head may take."""
    connection = Connection()
    assert connection.after(9.9)
    assert not connection.after(0.2)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: loc", b"\r\n\r\n"])
def test_a_head_that_does_not_end_is_closed(sent: bytes) -> None:
    """The time counts from the connection: a first byte does not give a client more of it."""
    connection = Connection()
    assert connection.after(9.0)
    connection.receive(sent)
    assert connection.after(0.9)
    assert not connection.after(0.2)


def test_a_head_that_is_sent_byte_by_byte_is_closed() -> None:
    """However often something arrives."""
    connection = Connection()
    for byte in REQUEST[:9]:
        connection.receive(bytes([byte]))
        assert connection.after(1.0)
    assert not connection.after(1.1)


def test_a_request_may_take_its_time_to_be_answered() -> None:
    """Once its head has ended no limit of waiting holds."""
    connection = Connection()
    connection.receive(REQUEST)
    assert connection.after(3_600)
