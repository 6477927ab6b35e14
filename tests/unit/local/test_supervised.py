"""Supervised processes: restarted after growing pauses, read line by line, ended through standard
input.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from stepstream.local.processes.restarts import (
    KINDS_OF_LINES,
    LONGEST_PAUSE_S,
    STEADY_S,
    RepeatFilter,
    RestartPauses,
)
from stepstream.local.processes.supervised import SupervisedProcess
from tests.support.processes import wait_until

GRACEFUL = """
import signal, sys, threading
from stepstream.local.processes.follow_parent import follow_parent
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
follow_parent()
print("up", flush=True)
while not ended.wait(0.05): pass
print("drained", flush=True)
"""
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


class Lines:
    """The output of a supervised process."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, _who: str, line: str) -> None:
        self.seen.append(line)

    def wait_for(self, text: str, seconds: float = 20) -> None:
        wait_until(
            lambda: any(text in line for line in self.seen),
            seconds,
            text,
            instead=lambda: self.seen,
        )


@pytest.fixture
def supervise() -> Callable[[str], tuple[SupervisedProcess, Lines]]:
    """Supervises a Python program."""

    def start(program: str) -> tuple[SupervisedProcess, Lines]:
        lines = Lines()
        process = SupervisedProcess("part", [sys.executable, "-c", program], os.environ, lines)
        process.start()
        return process, lines

    return start


def test_pauses_grow_up_to_a_limit_and_start_again_after_a_steady_run() -> None:
    """A part that ends at once does not keep the machine busy; one that ran long is back soon."""
    pauses = RestartPauses()
    waited = [pauses.next_pause(1) for _ in range(9)]
    assert waited == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    # A part that ran for long had a new failure, not the old one.
    assert pauses.next_pause(STEADY_S) == 0.5


def test_a_line_that_comes_again_and_again_passes_once_in_a_while() -> None:
    """A client that retries twenty times a second does not fill the terminal.

    Nothing else is suppressed.
    """
    repeats = RepeatFilter()
    passed = [repeats(f"attempt {number}: refused", 100 + number / 20) for number in range(300)]
    assert [line for line in passed if line] == [
        "attempt 0: refused",
        "attempt 200: refused (199 more in 10 s)",
    ]
    assert repeats("another line", 110) == "another line"
    assert repeats("another line", 121) == "another line"


def test_the_lines_remembered_are_bounded() -> None:
    """Ever new lines of a part use no memory."""
    repeats = RepeatFilter()
    for number in range(3 * KINDS_OF_LINES):
        assert repeats("x" * number, 1.0) is not None
    assert repeats("x" * (3 * KINDS_OF_LINES - 1), 1.0) is None
    assert repeats("", 1.0) is not None


def test_what_ends_is_started_again_and_its_exit_code_reported(
    supervise: Callable[[str], tuple[SupervisedProcess, Lines]],
) -> None:
    """Whatever the exit code: a part is to run until it is stopped."""
    process, lines = supervise("import sys; print('hello', flush=True); sys.exit(3)")
    lines.wait_for("ended with exit code 3; it is started again in 1 s")
    assert process.stop(5)
    status = process.status()
    assert (status.running, status.restarts, status.exit_code) == (False, 1, 3)
    assert lines.seen.count("hello") == 2
    assert "hello" in process.last_output()


def test_stopping_lets_it_finish(
    supervise: Callable[[str], tuple[SupervisedProcess, Lines]],
) -> None:
    """Closing its standard input becomes SIGTERM; it is not started again."""
    process, lines = supervise(GRACEFUL)
    lines.wait_for("up")
    assert process.status().running
    assert process.stop(10)
    lines.wait_for("drained")
    assert (process.status().running, process.status().restarts, process.status().exit_code) == (
        False,
        0,
        0,
    )


def test_what_does_not_end_in_time_is_killed_and_reported(
    supervise: Callable[[str], tuple[SupervisedProcess, Lines]],
) -> None:
    """A stop is bounded."""
    process, lines = supervise(IGNORES_SIGTERM)
    lines.wait_for("up")
    assert not process.stop(0.3)
    assert not process.status().running
    lines.wait_for("was killed")


def test_stopping_during_a_pause_starts_nothing(
    supervise: Callable[[str], tuple[SupervisedProcess, Lines]],
) -> None:
    """No part comes back after the stop."""
    process, lines = supervise("import sys; sys.exit(1)")
    lines.wait_for("started again in 2 s")
    assert process.stop(5)
    restarts = process.status().restarts
    time.sleep(0.3)
    assert (process.status().running, process.status().restarts) == (False, restarts)


@pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")
def test_the_parent_s_death_is_noticed_although_a_copy_of_the_parent_lives() -> None:
    """A forked copy keeps the pipe open; the parent's death is noticed all the same."""
    program = f"""
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", {GRACEFUL!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
)
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
    # The copy has the write end of the pipe: end-of-file alone would come when it ends.
    wait_until(lambda: not _alive(pid), 30, "the child to end with its parent")


def _alive(pid: int) -> bool:
    from stepstream.common.process import identity_of

    return identity_of(pid) is not None


def test_an_amended_environment_is_a_new_start_at_once_and_no_restart() -> None:
    """After an exit code with a remedy the process restarts at once with the changed
    environment.
    """
    program = (
        "import os, sys, time; print('try', os.environ['TRY'], flush=True); "
        "time.sleep(60 if os.environ['TRY'] == '2' else 0); sys.exit(3)"
    )
    asked: list[int] = []

    def amend(code: int) -> dict[str, str] | None:
        asked.append(code)
        return {**os.environ, "TRY": str(len(asked))}

    lines = Lines()
    environment = {**os.environ, "TRY": "0"}
    process = SupervisedProcess(
        "part", [sys.executable, "-c", program], environment, lines, amend=amend
    )
    process.start()
    try:
        lines.wait_for("try 2")
        assert asked == [3, 3]
        assert process.status().restarts == 0
        assert not any("started again" in line for line in lines.seen)
    finally:
        process.kill()
        process.stop(0)
