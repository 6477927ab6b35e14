"""Kept processes: started again after growing pauses, heard line by line, ended through their lifeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from stepstream.local.children import (
    KINDS_OF_LINES,
    LONGEST_PAUSE_S,
    STEADY_S,
    Backoff,
    KeptProcess,
    Squeeze,
)
from tests.support.processes import wait_until

OBEDIENT = """
import signal, sys, threading
from stepstream.local.lifeline import follow_parent
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
follow_parent()
print("up", flush=True)
while not ended.wait(0.05): pass
print("drained", flush=True)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


class Said:
    """What a kept process said, and when it is awaited."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, _who: str, line: str) -> None:
        self.lines.append(line)

    def wait_for(self, words: str, seconds: float = 20) -> None:
        wait_until(
            lambda: any(words in line for line in self.lines),
            seconds,
            words,
            instead=lambda: self.lines,
        )


@pytest.fixture
def keep() -> Callable[[str], tuple[KeptProcess, Said]]:
    """Keeps a Python program."""

    def start(program: str) -> tuple[KeptProcess, Said]:
        said = Said()
        process = KeptProcess("part", [sys.executable, "-c", program], os.environ, said)
        process.start()
        return process, said

    return start


def test_pauses_grow_up_to_a_limit_and_start_again_after_a_steady_run() -> None:
    """A part that ends at once does not keep the machine busy; one that ran long is back soon."""
    backoff = Backoff()
    pauses = [backoff.next_pause(1) for _ in range(9)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert backoff.next_pause(STEADY_S) == 0.5


def test_a_line_that_comes_again_and_again_is_told_once_in_a_while() -> None:
    """A client that retries twenty times a second does not fill the terminal; nothing else is held back."""
    squeeze = Squeeze()
    told = [squeeze(f"attempt {number}: refused", 100 + number / 20) for number in range(300)]
    assert [line for line in told if line] == [
        "attempt 0: refused",
        "attempt 200: refused (199 more in 10 s)",
    ]
    assert squeeze("another line", 110) == "another line"
    assert squeeze("another line", 121) == "another line"


def test_the_lines_remembered_are_bounded() -> None:
    """A part that says something new each time costs no memory."""
    squeeze = Squeeze()
    for number in range(3 * KINDS_OF_LINES):
        assert squeeze("x" * number, 1.0) is not None
    assert squeeze("x" * (3 * KINDS_OF_LINES - 1), 1.0) is None
    assert squeeze("", 1.0) is not None


def test_what_ends_is_started_again_and_its_exit_code_told(
    keep: Callable[[str], tuple[KeptProcess, Said]],
) -> None:
    """Whatever the exit code: a part is to run until it is stopped."""
    process, said = keep("import sys; print('hello', flush=True); sys.exit(3)")
    said.wait_for("ended with exit code 3; it is started again in 1 s")
    assert process.stop(5)
    status = process.status()
    assert (status.running, status.restarts, status.exit_code) == (False, 1, 3)
    assert said.lines.count("hello") == 2
    assert "hello" in process.last_words()


def test_stopping_lets_it_finish(keep: Callable[[str], tuple[KeptProcess, Said]]) -> None:
    """The lifeline turns the wish into SIGTERM; it is not started again."""
    process, said = keep(OBEDIENT)
    said.wait_for("up")
    assert process.status().running
    assert process.stop(10)
    said.wait_for("drained")
    time.sleep(0.7)
    assert (process.status().running, process.status().restarts, process.status().exit_code) == (
        False,
        0,
        0,
    )


def test_what_does_not_end_in_time_is_killed_and_told(
    keep: Callable[[str], tuple[KeptProcess, Said]],
) -> None:
    """A stop is bounded."""
    process, said = keep(DEAF)
    said.wait_for("up")
    assert not process.stop(0.3)
    assert not process.status().running
    said.wait_for("was killed")


def test_stopping_during_a_pause_starts_nothing(
    keep: Callable[[str], tuple[KeptProcess, Said]],
) -> None:
    """No part comes back after the stop."""
    process, said = keep("import sys; sys.exit(1)")
    said.wait_for("started again in 2 s")
    assert process.stop(5)
    restarts = process.status().restarts
    time.sleep(0.3)
    assert (process.status().running, process.status().restarts) == (False, restarts)


@pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")
def test_a_lifeline_holds_although_a_copy_of_the_parent_lives() -> None:
    """A forked copy keeps the pipe open; the parent's death is noticed all the same."""
    program = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {OBEDIENT!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
if os.fork() == 0:
    os.close(1)
    os.close(2)
    time.sleep(8)
    os._exit(0)
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 6
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    from stepstream.common.process import identity_of

    return identity_of(pid) is not None


def test_an_amended_environment_is_a_new_start_at_once_and_no_restart() -> None:
    """What ended with a code that can be mended is started with the other environment, without a pause."""
    program = (
        "import os, sys, time; print('try', os.environ['TRY'], flush=True); "
        "time.sleep(60 if os.environ['TRY'] == '2' else 0); sys.exit(3)"
    )
    asked: list[int] = []

    def amend(code: int) -> dict[str, str] | None:
        asked.append(code)
        return {**os.environ, "TRY": str(len(asked))}

    said = Said()
    environment = {**os.environ, "TRY": "0"}
    process = KeptProcess("part", [sys.executable, "-c", program], environment, said, amend=amend)
    process.start()
    try:
        said.wait_for("try 2")
        assert asked == [3, 3]
        assert process.status().restarts == 0
        assert not any("started again" in line for line in said.lines)
    finally:
        process.kill()
        process.stop(0)
