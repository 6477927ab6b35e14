"""The HTTP transport: sends records to a gateway's ``/v1/steps``, for agents without Kafka.

A thread of its own sends one request at a time, so that a run keeps its order, and repeats it until
it is answered: after the time in ``Retry-After``, else after a growing pause. The answer 200 means
that Kafka has acknowledged every event that was accepted.
"""

from __future__ import annotations

import gzip
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stepstream.common.retry_after import retry_after_s
from stepstream.producers.forks import fork_lock
from stepstream.producers.sdk_log import internal_error, sdk_log, suppressed
from stepstream.producers.transport.base import Done, Record, Undelivered
from stepstream.schemas.endpoint import is_loopback_host, split_http_endpoint

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

STEPS_PATH: Final = "/v1/steps"
BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 1 << 20
CONNECT_S: Final = 5.0
# The gateway answers within 4 s, also when Kafka does not.
ANSWER_S: Final = 10.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
LONGEST_RETRY_AFTER_S: Final = 60.0
JOIN_S: Final = 1.0
# A request costs the program's process about 0.6 ms of CPU, whether it has 2 events or 200: at
# 1,000 steps a second one every 10 ms would cost more than recording the steps.
GATHER_S: Final = 0.04
# As small as possible on the sender's side; texts shrink to a fifth even so.
GZIP_LEVEL: Final = 1
# The request is wrong: to repeat it would not help.
_REFUSED: Final = frozenset({400, 413, 415, 422})
# The endpoint or the key is wrong: the events are kept until that is corrected.
_MISCONFIGURED: Final = frozenset({401, 403, 404, 405})


@dataclass(frozen=True, slots=True)
class _Answer:
    """A gateway's answer; ``status`` 0 if there was none, with the reason in ``text``."""

    status: int
    text: str
    retry_after_s: float = 0.0
    body: bytes = b""


class _Rejections(msgspec.Struct):
    """The body of an answer of ``/v1/steps``."""

    accepted: int
    rejected: int
    error: str = ""


_Item = tuple[Record, Done]


class HttpTransport:
    """Sends records to the gateway at the setting ``endpoint``."""

    gather_s = GATHER_S

    def __init__(self, settings: Settings) -> None:
        self._url, self._host, base = split_http_endpoint(settings.endpoint)
        self._path = base + STEPS_PATH
        self._key = settings.endpoint_key.get_secret_value()
        self._compresses = settings.compression != "none" and not is_loopback_host(self._host)
        self._max_events = settings.queue_events
        self._max_bytes = settings.queue_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._in_memory = 0
        self._outcomes: deque[tuple[Done, str]] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pool: Any = None
        self._left_to_parent: list[Any] = []

    # --- called in the sender's thread ---

    def send(self, record: Record, done: Done) -> bool:
        with self._changed:
            if self._in_memory >= self._max_events or self._bytes >= self._max_bytes:
                return False
            self._queue.append((record, done))
            self._in_memory += 1
            self._bytes += len(record.value)
            self._changed.notify_all()
            if self._thread is None:
                self._start()
        return True

    def poll(self, timeout_s: float) -> None:
        with self._changed:
            if timeout_s and not self._outcomes:
                self._changed.wait(timeout_s)
            outcomes, self._outcomes = self._outcomes, deque()
        for done, reason in outcomes:
            done(reason)

    def close(self) -> None:
        with self._changed:
            thread, self._thread = self._thread, None
            self._stopping = True
            self._changed.notify_all()
        if thread is not None:
            thread.join(JOIN_S)
        with self._changed:
            given_up, self._queue = self._queue, deque()
            self._outcomes += [(done, Undelivered("it was closed")) for _, done in given_up]
        self.poll(0)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def abandon(self) -> None:
        self._left_to_parent.append((self._pool, self._changed, self._thread))
        self._pool = self._thread = None
        self._changed = threading.Condition()
        self._queue, self._outcomes = deque(), deque()

    def _start(self) -> None:
        self._stopping = False
        thread = threading.Thread(target=self._work, name="stepstream-http", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down; ``close`` gives the records back
            self._thread = None

    # --- called in the thread of this transport ---

    def _work(self) -> None:
        suppressed.set(True)
        try:
            while batch := self._next_batch():
                self._deliver(batch)
        except Exception as error:
            internal_error("http", error)
        with self._changed:
            if self._thread is threading.current_thread():
                self._thread = None

    def _next_batch(self) -> list[_Item]:
        """The next records; empty at the end."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return []
            batch: list[_Item] = []
            size = 0
            while self._queue and len(batch) < BATCH_EVENTS:
                size += len(self._queue[0][0].value)
                if batch and size > BATCH_BYTES:
                    break
                batch.append(self._queue.popleft())
            return batch

    def _deliver(self, batch: list[_Item]) -> None:
        """Send a batch until it is answered; at the end of the transport it is given back."""
        try:
            answer = self._answered(batch)
        except BaseException:
            self._settle(batch, Undelivered("it could not be sent"))
            raise
        if answer.status == 200 or answer.status in _REFUSED:
            self._settle_answer(batch, answer)
        else:
            self._settle(batch, Undelivered(answer.text))

    def _settle_answer(self, batch: list[_Item], answer: _Answer) -> None:
        found = _rejections(answer) or _Rejections(0, 0)
        if answer.status == 200 and not found.rejected:
            self._settle(batch, "")
        elif len(batch) == 1 or (found.rejected and not found.accepted):
            self._settle(batch, found.error or answer.text)
        else:
            # Which of them were refused follows from sending the halves: what was accepted before
            # is a duplicate then. A refused request as a whole may be one that is too large.
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            self._deliver(batch[middle:])

    def _settle(self, batch: list[_Item], reason: str) -> None:
        with self._changed:
            self._outcomes += [(done, reason) for _, done in batch]
            self._in_memory -= len(batch)
            self._bytes -= sum(len(record.value) for record, _ in batch)
            self._changed.notify_all()

    def _answered(self, batch: list[_Item]) -> _Answer:
        """Send until there is an answer that a repetition would not change, or until the end."""
        body = b"\n".join(record.value for record, _ in batch)
        pause_s = FIRST_RETRY_S
        while True:
            answer = self._post(body)
            if answer.status in _MISCONFIGURED:
                text = f"stepstream: {self._url} refuses events: {answer.text}; they are kept"
                sdk_log.log(f"http {answer.status}", text)
            elif answer.status == 200 and _rejections(answer) is None:
                # A page of a proxy or of another server: nothing shows that Kafka has the events.
                text = f"stepstream: {self._url} does not answer as a gateway; events are kept"
                sdk_log.log("http 200", text)
                answer = _Answer(0, "it is no answer of a gateway")
            elif answer.status == 200 or answer.status in _REFUSED:
                return answer
            else:
                sdk_log.log(
                    f"http:{self._host}",
                    f"stepstream: {self._url}: {answer.text}; events are kept and sent later",
                )
            with self._changed:
                if not self._stopping:
                    self._changed.wait_for(lambda: self._stopping, answer.retry_after_s or pause_s)
                if self._stopping:
                    return answer
            pause_s = min(LONGEST_RETRY_S, 2 * pause_s)

    def _post(self, body: bytes) -> _Answer:
        headers = {"Content-Type": "application/x-ndjson", "User-Agent": "stepstream-python"}
        if self._key:
            headers["x-api-key"] = self._key
        if self._compresses:
            body = gzip.compress(body, GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        try:
            response = self._connections().request("POST", self._path, body=body, headers=headers)
        except Exception as error:  # urllib3's errors, and those of a faulty environment
            return _Answer(0, _network_reason(error))
        text = " ".join(response.data[:300].decode("utf-8", "replace").split())
        return _Answer(
            response.status,
            f"HTTP {response.status} {text}".rstrip(),
            retry_after_s(response.headers.get("retry-after", ""), LONGEST_RETRY_AFTER_S),
            response.data,
        )

    def _connections(self) -> Any:
        if self._pool is None:
            self._pool = new_pool(self._url, answer_s=ANSWER_S)
        return self._pool


def new_pool(url: str, *, answer_s: float) -> Any:
    """A urllib3 pool for the host of a URL, without retries and redirects of its own."""
    with fork_lock.importing():
        import urllib3

    return urllib3.connection_from_url(
        url,
        maxsize=1,
        retries=False,
        timeout=urllib3.Timeout(connect=CONNECT_S, read=answer_s),
    )


def _rejections(answer: _Answer) -> _Rejections | None:
    """The body of an answer; None if it is not one of ``/v1/steps``."""
    try:
        return msgspec.json.decode(answer.body, type=_Rejections)
    except msgspec.MsgspecError:
        return None


def _network_reason(error: Exception) -> str:
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return f"{type(inner).__name__}: {inner}" if str(inner) else type(inner).__name__
