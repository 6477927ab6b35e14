"""An OTLP client in a process of its own: sends bodies over many connections, as fast as they are
answered or at a given rate, and repeats what was refused.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from benchmarks.child import Answer, Child, Handler, serve
from benchmarks.otlp_load import SPANS, Body, OtlpLoad

# Of this many requests one waits for `100 Continue`, so that a refusal can come before its body.
PROBE_EVERY: Final = 4
REFUSED: Final = ("429", "503")


class OtlpSender:
    """The parent's side."""

    def __init__(self) -> None:
        self._child = Child.module("benchmarks.otlp_sender")

    def load(self, form: str, count: int, *, spans: int = SPANS, seed: int, **how: Any) -> None:
        """Make ``count`` bodies, which ``send`` uses up."""
        self._child.ask(do="load", form=form, count=count, spans=spans, seed=seed, **how)

    def send(
        self,
        url: str,
        *,
        connections: int,
        seconds: float,
        rate: float = 0,
        timeout_s: float = 10,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send for this many seconds, or until all bodies are acknowledged.

        ``rate`` is spans a second that become due, however long answers take; 0 for as fast as the
        connections get answers. Returns ``_Outcome`` as a dictionary.
        """
        # Not ask(), whose own timeout_s would take the command's.
        self._child.send(
            do="send",
            url=url,
            connections=connections,
            seconds=seconds,
            rate=rate,
            timeout_s=timeout_s,
            headers=dict(headers or {}),
        )
        return self._child.wait(600)

    def close(self) -> None:
        self._child.close()

    def __enter__(self) -> OtlpSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Outcome:
    """What became of the requests."""

    began_s: float = 0.0
    ended_s: float = 0.0
    # Answers by status; ``none`` for a connection that broke or took too long.
    answers: Counter[str] = field(default_factory=Counter)
    # By status: from the moment the request was due until its answer.
    took_s: dict[str, list[float]] = field(default_factory=dict)
    # By status: from its sending until its answer, without the wait for a free connection.
    answered_s: dict[str, list[float]] = field(default_factory=dict)
    acked_spans: int = 0
    # Names of acknowledged batches.
    acked: list[str] = field(default_factory=list)
    # Refusals without the header Retry-After.
    without_retry_after: int = 0
    probed: int = 0
    # Refused requests that had waited for ``100 Continue``, and those answered without it.
    probed_before_body: int = 0
    first_error: str = ""


class _Sending:
    """The child's side."""

    def __init__(self) -> None:
        self._bodies: deque[Body] = deque()
        self._content = ""

    def load(self, form: str, count: int, spans: int, seed: int, remote: bool = False) -> Answer:
        made = OtlpLoad(form, spans, seed=seed, remote=remote)
        self._content = form
        self._bodies = deque(made.body(time.time_ns()) for _ in range(count))
        return {"bytes": sum(len(body.data) for body in self._bodies)}

    def send(self, **how: Any) -> Answer:
        return uvloop.run(_Run(self._bodies, self._content, **how).play())


class _Run:
    """One time of sending."""

    def __init__(
        self,
        bodies: deque[Body],
        content: str,
        *,
        url: str,
        connections: int,
        seconds: float,
        rate: float,
        timeout_s: float,
        headers: dict[str, str],
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        lines = [
            f"POST {parts.path or '/v1/traces'} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Content-Type: {content}",
            "Content-Encoding: gzip",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._head = "\r\n".join(lines) + "\r\n"
        self._bodies = bodies
        self._connections = connections
        self._seconds = seconds
        self._rate = rate
        self._timeout_s = timeout_s
        self._outcome = _Outcome()
        self._number = 0
        self._due: asyncio.Queue[tuple[float, Body] | None] = asyncio.Queue()

    async def play(self) -> Answer:
        self._outcome.began_s = time.monotonic()
        workers = [asyncio.create_task(self._work()) for _ in range(self._connections)]
        if self._rate:
            await self._pace()
        await asyncio.gather(*workers)
        self._outcome.ended_s = time.monotonic()
        return vars(self._outcome)

    async def _pace(self) -> None:
        """Put bodies into the queue when they are due."""
        began, spans = time.monotonic(), 0
        while self._bodies and (elapsed := time.monotonic() - began) < self._seconds:
            while self._bodies and spans <= elapsed * self._rate:
                body = self._bodies.popleft()
                self._due.put_nowait((began + spans / self._rate, body))
                spans += body.spans
            await asyncio.sleep(0.002)
        for _ in range(self._connections):
            self._due.put_nowait(None)

    async def _next(self) -> tuple[float, Body] | None:
        if self._rate:
            return await self._due.get()
        if not self._bodies or time.monotonic() - self._outcome.began_s > self._seconds:
            return None
        return time.monotonic(), self._bodies.popleft()

    async def _work(self) -> None:
        """Send over one connection until nothing is left."""
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (found := await self._next()) is not None:
            due, body = found
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout_s):
                    if connection is None:
                        connection = await asyncio.open_connection(self._host, self._port)
                    status, closes = await self._request(*connection, body)
            except (OSError, EOFError, TimeoutError) as error:
                self._note("none", due, began, body)
                self._outcome.first_error = self._outcome.first_error or repr(error)
                closes = True
            else:
                self._note(status, due, began, body)
            if closes and connection is not None:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    def _note(self, status: str, due: float, began: float, body: Body) -> None:
        outcome = self._outcome
        outcome.answers[status] += 1
        now = time.monotonic()
        outcome.took_s.setdefault(status, []).append(now - due)
        outcome.answered_s.setdefault(status, []).append(now - began)
        if status == "200":
            outcome.acked_spans += body.spans
            if body.spans > 1:
                outcome.acked.append(body.batch)
        else:
            self._bodies.append(body)  # as exporters do: the same batch again, later

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Body
    ) -> tuple[str, bool]:
        """The status of the answer, and whether the connection ends. Raises ``OSError`` and
        ``EOFError``.
        """
        self._number += 1
        probes = self._number % PROBE_EVERY == 0 and body.spans > 1
        expect = "Expect: 100-continue\r\n" if probes else ""
        head = f"{self._head}{expect}Content-Length: {len(body.data)}\r\n\r\n".encode()
        writer.write(head if probes else head + body.data)
        answer = await reader.readuntil(b"\r\n\r\n")
        before_body = probes
        if probes and answer.startswith(b"HTTP/1.1 100"):
            before_body = False
            writer.write(body.data)
            answer = await reader.readuntil(b"\r\n\r\n")
        low = answer.lower()
        status = answer[9:12].decode()
        text = await _rest(reader, low)
        if status != "200" and not self._outcome.first_error:
            self._outcome.first_error = f"{status}: {text[:300].decode('utf-8', 'replace')}"
        if status in REFUSED:
            self._outcome.without_retry_after += b"\r\nretry-after:" not in low
            self._outcome.probed += probes
            self._outcome.probed_before_body += before_body
        # The server waits for the body of a request that it has answered without reading it.
        return status, b"\r\nconnection: close" in low or before_body


async def _rest(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The answer's body."""
    _, found, after = head.partition(b"\r\ncontent-length:")
    if found:
        return await reader.readexactly(int(after.partition(b"\r\n")[0]))
    if b"transfer-encoding: chunked" not in head:
        return b""
    text = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        text += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return text


if __name__ == "__main__":
    sending = _Sending()
    handlers: dict[str, Handler] = {"load": sending.load, "send": sending.send}
    serve(handlers)
