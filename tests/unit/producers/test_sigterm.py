"""SIGTERM ends open runs as cancelled, sends them, and ends the process as before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

PROGRAM = """
import json, os, pathlib, signal, sys, threading, time
{before}
import stepstream
from stepstream.producers.transport.memory import MemoryTransport

class Written(MemoryTransport):
    def poll(self, timeout_s):
        super().poll(timeout_s)
        events = [[one.name, one.phase, one.status] for one in self.events]
        # In one piece: the process may be killed at any moment.
        pathlib.Path("new events").write_text(json.dumps(events))
        os.replace("new events", "events")

stepstream.configure(transport=Written(), quiet=True, {settings})

def other():
    with stepstream.Tracer.run(stepstream._tracer, "in thread"):
        time.sleep(60)

thread = threading.Thread(target=other, daemon=True)
thread.start()
with stepstream.run("agent") as run, run.tool("search"):
    {after}
    assert stepstream.flush(30)
    while not pathlib.Path("events").exists():
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(60)
"""


def terminated(
    tmp_path: Path, before: str = "", after: str = "pass", settings: str = "", output: str = ""
) -> tuple[int, str, dict[str, str]]:
    """Exit code, output, and the status of each ended step of a program that gets SIGTERM.

    ``output`` is what the program prints before that.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before, after=after, settings=settings)],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        before_that = ""
        while (line := stdout.readline()) != "ready\n":
            assert line, "the program ended"
            before_that += line
        assert before_that == output
        process.send_signal(signal.SIGTERM)
        text = stdout.read()
    code = process.wait(60)
    events = json.loads((tmp_path / "events").read_text())
    return code, text, {name: status for name, phase, status in events if phase == "end"}


def test_open_runs_end_as_cancelled(tmp_path: Path) -> None:
    """Those of other threads too, and the process ends by the signal."""
    code, _, ended = terminated(tmp_path)
    assert code == -signal.SIGTERM
    assert ended == {"agent": "cancelled", "search": "cancelled", "in thread": "cancelled"}


HANDLER = "signal.signal(signal.SIGTERM, lambda *_: (print('own'), sys.exit(7)))"


def test_an_earlier_handler_is_called_afterwards(tmp_path: Path) -> None:
    """Open runs end as cancelled first; the handler's output and exit code stay."""
    code, text, ended = terminated(tmp_path, before=HANDLER)
    assert (code, text) == (7, "own\n")
    assert ended == {"agent": "cancelled", "search": "cancelled", "in thread": "cancelled"}


def test_an_earlier_handler_that_goes_on(tmp_path: Path) -> None:
    """The process lives on when the handler returns, and records what comes after it."""
    before = "signal.signal(signal.SIGTERM, lambda *_: print('own', flush=True))"
    after = """
    signal.raise_signal(signal.SIGTERM)
    with stepstream.run("later"):
        pass
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
"""
    code, text, ended = terminated(tmp_path, before=before, after=after, output="own\n")
    # The exit code of the last handler: the process has lived on after the first signal.
    assert (code, text) == (3, "")
    assert ended["agent"] == ended["search"] == "cancelled"
    assert ended["later"] == "ok"


def test_a_later_handler_stays(tmp_path: Path) -> None:
    """It replaces the SDK's; steps end by the exception of its ``sys.exit``."""
    code, text, ended = terminated(tmp_path, after=HANDLER)
    assert (code, text) == (7, "own\n")
    assert set(ended) == {"agent", "search"}


def test_a_handler_of_an_event_loop(tmp_path: Path) -> None:
    """``loop.add_signal_handler`` before the first run: its callback is still called."""
    program = """
import asyncio, os, signal
import stepstream
from stepstream.producers.transport.memory import MemoryTransport

transport = MemoryTransport()
stepstream.configure(transport=transport, quiet=True)

async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    async with stepstream.run("agent"):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(done.wait(), 30)

asyncio.run(main())
print([(step.name, step.status) for step in transport.ended])
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[('agent', 'cancelled')]\n"


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """The process ends at once then."""
    code, _, ended = terminated(tmp_path, settings="handle_sigterm=False")
    assert code == -signal.SIGTERM
    assert ended == {}


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """The program has decided so."""
    after = "assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN; signal.signal(15, 0)"
    code, _, _ = terminated(
        tmp_path, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)", after=after
    )
    assert code == -signal.SIGTERM
