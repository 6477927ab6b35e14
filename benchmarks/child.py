"""A benchmark's helper processes: commands go in and answers come out as JSON lines; each ends with
its parent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
Answer = dict[str, Any]
Handler = Callable[..., Answer | None]


class ChildFailed(Exception):
    """A helper process ended or did not answer in time; the message has its last output."""


class Child:
    """A running helper.

    ``ask`` sends a command and waits for its answer; ``send`` and ``wait`` do one of the two.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = " ".join(command[1:3])
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            text=True,
        )
        self._answers: Queue[Answer | None] = Queue()
        self._words: deque[str] = deque(maxlen=30)
        self._readers = [
            threading.Thread(target=read, daemon=True)
            for read in (self._read_answers, self._read_words)
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def module(
        cls, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Child:
        """``python -m name arguments`` with this interpreter."""
        return cls([sys.executable, "-m", name, *arguments], environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, **command: Any) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("has ended") from None

    def wait(self, timeout_s: float) -> Answer:
        """The next answer. Raises ``ChildFailed``."""
        try:
            answer = self._answers.get(timeout=timeout_s)
        except Empty:
            raise self._failed(f"did not answer within {timeout_s:.0f} s") from None
        if answer is None:
            raise self._failed("has ended")
        return answer

    def ask(self, timeout_s: float = 600, **command: Any) -> Answer:
        """Send a command and wait for its answer."""
        self.send(**command)
        return self.wait(timeout_s)

    def close(self, timeout_s: float = 20) -> None:
        """Close its input, which ends it; kill it when that takes too long."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _failed(self, what: str) -> ChildFailed:
        return ChildFailed(f"{self.name} {what}; its last words:\n" + "".join(self._words))

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._answers.put(json.loads(line))
            else:
                self._words.append(line)
        self._answers.put(None)  # it has ended

    def _read_words(self) -> None:
        assert self._process.stderr is not None
        self._words.extend(self._process.stderr)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def serve(handlers: Mapping[str, Handler]) -> None:
    """In the helper: run the handler that each command names (``do``) with its other fields, until
    the input closes."""
    for line in sys.stdin:
        command = json.loads(line)
        answer = handlers[command.pop("do")](**command)
        if answer is not None:
            _write(answer)


def _write(answer: Answer) -> None:
    """In the helper: answer."""
    print(json.dumps(answer), flush=True)
