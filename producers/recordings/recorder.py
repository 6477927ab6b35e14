"""Writes each run's calls to a file of its own, whole: contents are not cut, unlike those of steps.

Known forms of secrets are replaced. An error of the recorder itself is logged and noted as a gap of
the recording; the program does not see it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, Final

from stepstream.producers.forks import call_after_fork
from stepstream.producers.recordings.boundary import CallStep, Pieces, enclosing
from stepstream.producers.recordings.values import encode, encode_error, opaque_in, redacted
from stepstream.producers.sdk_log import internal_error, sdk_log
from stepstream.schemas.recording import (
    MAX_CALLS,
    MAX_RECORDING_BYTES,
    Line,
    end,
    header,
    written,
)
from stepstream.schemas.redaction import redacted_value

MAX_FILES: Final = 10_000
RECOUNT_RUNS: Final = 100
"""Runs after which the files of the folder are counted again: other processes write there too."""
RECOUNT_S: Final = 10.0
"""Time until a full folder is counted again."""
MAX_OPEN_RUNS: Final = 200
"""Runs that are recorded at the same time. Each has a file open, and many systems allow a process
1,024 of them, which the program itself needs.
"""
ABANDONED_S: Final = 3_600.0
"""Time without a call after which an open run gives way to a new one."""
MAX_GAPS: Final = 20
MAX_PIECES: Final = 100_000
"""Pieces of one stream, which are in memory until it ends."""
SUFFIX: Final = ".jsonl"


class _File:
    """The recording of one run."""

    def __init__(self, path: Path) -> None:
        # Only the owner may read it: it has contents as the program saw them.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o600)
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._bytes = 0
        self._calls = 0
        self._pid = os.getpid()
        self.written_s = time.monotonic()
        self.gaps: dict[str, None] = {}
        self.open_calls: dict[str, int] = {}
        """The numbers of the calls that are going on, by the ids of their steps."""

    def gap(self, reason: str) -> None:
        """Note why the run cannot be replayed as a whole."""
        if len(self.gaps) < MAX_GAPS:
            self.gaps[reason] = None

    def next_number(self) -> int:
        """The number of the next call; 0: it is not recorded."""
        if self._is_forked():
            return 0
        with self._lock:
            if self._calls >= MAX_CALLS:
                self.gap(f"more than {MAX_CALLS} calls")
                return 0
            self._calls += 1
            return self._calls

    def write(self, line: Line) -> None:
        """Append a line, unless the recording is too long by now."""
        data = f"{written(line)}\n".encode()
        if self._is_forked():
            return
        with self._lock:
            if self._descriptor < 0:
                return
            self._bytes += len(data)
            if self._bytes > MAX_RECORDING_BYTES:
                self.gap(f"more than {MAX_RECORDING_BYTES} bytes")
                return
            self.written_s = time.monotonic()
            self._append(data)

    def finish(self, output: str | None, error: str) -> None:
        """Write the end."""
        if self._is_forked():
            return
        with self._lock:
            if self._descriptor < 0:
                return
            gaps = list(map(redacted_value, self.gaps))
            line = end(self._calls, output, error, gaps, self._digest.hexdigest())
            self._append(f"{written(line)}\n".encode())

    def close(self) -> None:
        """Close the file, which has no end unless ``finish`` wrote it."""
        with self._lock:
            if self._descriptor >= 0:
                descriptor, self._descriptor = self._descriptor, -1
                os.close(descriptor)

    def _is_forked(self) -> bool:
        # A forked copy: its lines would be mixed with those of the program. Without the lock, which
        # a thread that does not exist in the copy may have.
        return os.getpid() != self._pid

    def _append(self, data: bytes) -> None:
        self._digest.update(data)
        while data:
            data = data[os.write(self._descriptor, data) :]


class Recorder:
    """Records every run of this process into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.redact: Callable[[str], str] | None = None
        """The program's own redaction, after that of known forms."""
        self._open: dict[str, _File] = {}
        # Files in the folder when they were counted last, and runs that began since.
        self._counted = 0
        self._since = RECOUNT_RUNS
        self._next_count_s = 0.0
        self.after_fork()
        call_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock in the child: another thread of the parent may have it."""
        self._lock = threading.Lock()

    # --- runs ---

    def run_began(self, run: Any) -> None:
        """Open the recording of a root."""
        try:
            file = self._opened(run.trace_id)
            if file is None:
                return
            labels = run._scope.labels
            given = encode(run._fields.get("input"))
            if lost := opaque_in(given):
                file.gap(f"the run's input has a value of class {lost}, which has no recorded form")
            first = header(
                run.trace_id,
                redacted_value(labels["agent"]),
                redacted_value(labels["agent_version"]),
                self._redacted(labels.get("task", "")),
                self._redacted(given),
                run._record.start_time,
            )
            file.write(first)
        except Exception as error:
            internal_error("recordings", error)

    def _opened(self, trace_id: str) -> _File | None:
        """The file of a run that begins; None, which is logged, if a limit is reached."""
        with self._lock:
            if self._is_full():
                sdk_log.log(
                    "recordings",
                    f"stepstream: {self._folder} has {MAX_FILES} files; runs are not recorded "
                    "until old recordings are deleted",
                )
                return None
            if len(self._open) >= MAX_OPEN_RUNS and not self._close_abandoned():
                sdk_log.log(
                    "recordings at once",
                    f"stepstream: {MAX_OPEN_RUNS} runs are being recorded; further ones are not "
                    "until one of these has ended",
                )
                return None
            file = self._open[trace_id] = _File(self._folder / f"{trace_id}{SUFFIX}")
            self._since += 1
        return file

    def _is_full(self) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # To list a folder of thousands of files takes milliseconds, so not for each run.
        is_full = self._counted + self._since >= MAX_FILES
        if self._since >= RECOUNT_RUNS or (is_full and time.monotonic() >= self._next_count_s):
            with os.scandir(self._folder) as found:
                self._counted = sum(1 for _ in found)
            self._since = 0
            self._next_count_s = time.monotonic() + RECOUNT_S
        return self._counted + self._since >= MAX_FILES

    def _close_abandoned(self) -> bool:
        """Close the recording that was written to least recently, if that is long ago: its run was
        probably never ended. It has no end then, so that it cannot be taken for a whole one.
        """
        # A copy: runs end in other threads.
        trace_id, file = min(list(self._open.items()), key=lambda item: item[1].written_s)
        if time.monotonic() - file.written_s < ABANDONED_S:
            return False
        self._open.pop(trace_id, None)
        file.close()
        return True

    def run_ended(self, run: Any, error: BaseException | None) -> None:
        """Close the recording of a root."""
        file = self._open.pop(run.trace_id, None)
        if file is None:
            return
        try:
            file.finish(*end_of(run, error, self.redact))
            if file.gaps:
                sdk_log.log(
                    "recording gaps",
                    f"stepstream: the recording of run {run.trace_id} cannot be replayed as a "
                    f"whole: {'; '.join(file.gaps)}",
                )
        except Exception as problem:
            internal_error("recordings", problem)
        finally:
            file.close()

    # --- calls ---

    def call(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        one = _Call(self, step, arguments)
        try:
            result = function()
        except BaseException as error:
            one.failed(error)
            raise
        one.returned(result)
        return result

    async def acall(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        one = _Call(self, step, arguments)
        try:
            result = await function()
        except BaseException as error:
            one.failed(error)
            raise
        one.returned(result)
        return result

    def stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> Generator[Any, Any, Any]:
        one = _Call(self, step, arguments)
        pieces: Any = iter(function())
        advance: Callable[[], Any] = partial(next, pieces)
        while True:
            try:
                piece = advance()
            except StopIteration as stop:
                one.returned(stop.value)
                return stop.value
            except BaseException as error:
                one.failed(error)
                raise
            one.piece(piece)
            try:
                sent = yield piece
                advance = partial(next, pieces) if sent is None else partial(pieces.send, sent)
            except GeneratorExit:
                one.gap("a stream was closed before its end")
                _closed(pieces)
                raise
            except BaseException as thrown:
                if not hasattr(pieces, "throw"):
                    raise
                advance = partial(pieces.throw, thrown)

    async def astream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> AsyncGenerator[Any, Any]:
        one = _Call(self, step, arguments)
        pieces: Any = aiter(function())
        advance: Callable[[], Any] = pieces.__anext__
        while True:
            try:
                piece = await advance()
            except StopAsyncIteration:
                one.returned(None)
                return
            except BaseException as error:
                one.failed(error)
                raise
            one.piece(piece)
            try:
                sent = yield piece
                advance = pieces.__anext__ if sent is None else partial(pieces.asend, sent)
            except GeneratorExit:
                one.gap("a stream was closed before its end")
                if hasattr(pieces, "aclose"):
                    await pieces.aclose()
                raise
            except BaseException as thrown:
                if not hasattr(pieces, "athrow"):
                    raise
                advance = partial(pieces.athrow, thrown)

    def client_stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> tuple[Any, Pieces | None]:
        one = _Call(self, step, arguments)
        try:
            made = function()
        except BaseException as error:
            one.failed(error)
            raise
        if inspect.isawaitable(made):
            return _awaited(one, made), one
        one.is_stream()
        return made, one

    # --- inside ---

    def _file_of(self, trace_id: str) -> _File | None:
        return self._open.get(trace_id)

    def _redacted(self, encoded: Any) -> Any:
        return redacted(encoded, self.redact)


def end_of(
    run: Any, error: BaseException | None, redact: Callable[[str], str] | None
) -> tuple[str | None, str]:
    """The answer of a root, None if it is not whole, and the exception that ended it."""
    output = run._record.output
    # Contents of steps are cut; a part of an answer proves nothing about the rest of it.
    size = len(output.encode("utf-8", "replace"))
    whole = bool(output) and size >= (run._record.output_bytes or 0)
    text = f"{type(error).__name__}: {error}" if error is not None else ""
    return (redacted(output, redact) if whole else None), redacted(text, redact)


class _Call:
    """One call that is going on."""

    def __init__(self, recorder: Recorder, step: CallStep, arguments: object) -> None:
        self._recorder = recorder
        self._step = step
        self._file = recorder._file_of(step.trace_id)
        self._inside = 0
        self._chunks: list[Any] | None = None
        self.number = 0
        if self._file is None:
            return
        try:
            self._arguments = recorder._redacted(encode(arguments))
            self._inside = enclosing(step, self._file.open_calls)
            self.number = self._file.next_number()
            if step.step_id:
                self._file.open_calls.setdefault(step.step_id, self.number)
        except Exception as error:
            internal_error("recordings", error)

    def is_stream(self) -> None:
        """The result is a stream, even if no piece of it comes."""
        self._chunks = []

    def piece(self, piece: object) -> None:
        """A piece of a stream has come."""
        if self.number:
            self._chunks = [] if self._chunks is None else self._chunks
            if len(self._chunks) >= MAX_PIECES:
                self.gap(f"a stream of more than {MAX_PIECES} pieces")
                return
            try:
                self._chunks.append(encode(piece))
            except Exception as error:
                self._lost(error)

    def returned(self, result: object) -> None:
        """Record the result of the call."""
        if self.number:
            try:
                outcome = {"result": encode(result)}
                if self._chunks is not None:
                    outcome["chunks"] = self._chunks
                self._write(outcome)
            except Exception as error:
                self._lost(error)

    def failed(self, error: BaseException) -> None:
        """Record the exception that the call raised."""
        if self.number:
            try:
                outcome = {"error": encode_error(error)}
                if self._chunks is not None:
                    outcome["chunks"] = self._chunks
                self._write(outcome)
            except Exception as problem:
                self._lost(problem)

    def gap(self, reason: str) -> None:
        if self.number and self._file is not None:
            self._file.gap(f"call {self.number}, {self._step._name}: {reason}")

    def _lost(self, error: Exception) -> None:
        internal_error("recordings", error)
        self.gap("it could not be recorded")

    def _write(self, outcome: dict[str, Any]) -> None:
        if self._file is None:
            return
        if self._file.open_calls.get(self._step.step_id) == self.number:
            del self._file.open_calls[self._step.step_id]
        kept = self._recorder._redacted(outcome)
        if kept != outcome:
            kept["redacted"] = True
        # Of a failed call, the text of the exception stands for what its arguments cannot.
        if "error" not in outcome and (lost := opaque_in(outcome)):
            self.gap(f"its result has a value of class {lost}, which has no recorded form")
        self._file.write(
            {
                "call": self.number,
                "in": self._inside,
                "kind": self._step._kind,
                "name": redacted_value(self._step._name),
                "step_id": self._step.step_id,
                "arguments": self._arguments,
                "outcome": kept,
            }
        )


async def _awaited(one: _Call, made: Awaitable[Any]) -> Any:
    """The stream of an asynchronous client, whose request fails while it is awaited."""
    try:
        stream = await made
    except BaseException as error:
        one.failed(error)
        raise
    one.is_stream()
    return stream


def _closed(pieces: Any) -> None:
    if hasattr(pieces, "close"):
        pieces.close()
