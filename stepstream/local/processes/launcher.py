"""Runs one program so that it never outlives the process that started this one.

    python -I -S launcher.py PROGRAM [ARGUMENT ...]

The parent holds the other end of standard input: a line is a command (term, kill, stop, cont), its
end means that the parent is gone. The first line of standard output is the program's pid; its exit
code becomes that of this process. Signals are sent only to our own unreaped child, so a reused pid
is never hit. Uses the standard library alone, because it runs isolated (``-I -S``).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 10.0
WATCH_SECONDS = 1.0


def _die_with_launcher() -> None:
    """In the child, on Linux: end when the launcher's only thread ends, even by SIGKILL."""
    # The parent cannot do the same with the launcher: the signal is sent when the *thread* that
    # started a process ends, and the parent has several.
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    hook = _die_with_launcher if sys.platform == "linux" else None
    # The hook runs before this process has a second thread, where preexec_fn is safe.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, preexec_fn=hook)  # noqa: PLW1509


def _read_commands(events: queue.Queue[str]) -> None:
    for line in sys.stdin:
        events.put(line.strip())
    events.put("parent gone")


def _wait_for(child: subprocess.Popen[bytes], events: queue.Queue[str]) -> None:
    child.wait()
    events.put("ended")


def _signal(child: subprocess.Popen[bytes], name: str) -> None:
    number = getattr(signal, name, None)
    if number is not None:
        child.send_signal(number)


def _terminate(child: subprocess.Popen[bytes]) -> None:
    _signal(child, "SIGCONT")  # a stopped process would not see the next one
    child.terminate()


def _apply(child: subprocess.Popen[bytes], command: str) -> None:
    if command == "term":
        _terminate(child)
    elif command == "kill":
        child.kill()
    elif command == "stop":
        _signal(child, "SIGSTOP")
    elif command == "cont":
        _signal(child, "SIGCONT")


def _end(child: subprocess.Popen[bytes]) -> None:
    _terminate(child)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    child.kill()
    child.wait()


def _watch(child: subprocess.Popen[bytes], events: queue.Queue[str], parent: int) -> None:
    """Until the child has ended or the parent is gone."""
    while True:
        try:
            event = events.get(timeout=WATCH_SECONDS)
        except queue.Empty:
            event = ""
        if event == "ended":
            return
        # A forked copy of the parent may keep our standard input open: ask the kernel too.
        if event == "parent gone" or (os.name == "posix" and os.getppid() != parent):
            _end(child)
            return
        _apply(child, event)


def main(command: list[str]) -> int:
    parent = os.getppid()
    child = _spawn(command)
    signal.signal(signal.SIGTERM, lambda *_: _terminate(child))
    print(child.pid, flush=True)
    events: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_commands, args=(events,), daemon=True).start()
    threading.Thread(target=_wait_for, args=(child, events), daemon=True).start()
    _watch(child, events, parent)
    code = child.wait()
    # Not sys.exit: a daemon thread sits in a read of standard input, and a clean shutdown would
    # wait for its lock.
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
