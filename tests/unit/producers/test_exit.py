"""What a program that uses the SDK looks like from outside:

its output, its exit code, its last line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepstream.producers.exit_summary import Totals, exit_line
from stepstream.producers.transport.background_sender import Counts

MEMORY = """
import stepstream
from stepstream.producers.transport.memory import MemoryTransport
transport = MemoryTransport()
stepstream.configure(agent="support", transport=transport)
"""


def program(tmp_path: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with no setting but those given, where no ``stepstream up`` runs."""
    file = tmp_path / "agent.py"
    file.write_text(code)
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")
    }
    return subprocess.run(
        # Development mode also shows unclosed files and threads that are left at the end.
        [sys.executable, "-X", "dev", "-W", "error", str(file)],
        env={
            **clean,
            "STEPSTREAM_STATE_DIR": str(tmp_path / "state"),
            "PYTHONPATH": os.getcwd(),
            **environment,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_run(tmp_path: Path) -> None:
    """A program that did one run prints one line, with the command that shows it; stdout stays the
    program's own.
    """
    done = program(
        tmp_path,
        MEMORY
        + """
with stepstream.run(task="refund") as run:
    with run.llm("plan", model="gpt-4o", provider="openai") as step:
        step.set_usage(input_tokens=1000, output_tokens=100)
    with run.tool("find"):
        pass
    print(run.trace_id)
# The wait at the end of a program is bounded: 5 s, which may be too short on a busy machine.
stepstream.flush(60)
""",
    )
    trace_id = done.stdout.strip()
    assert done.returncode == 0
    assert (
        done.stderr == f"stepstream: run {trace_id[:8]}… · 3 steps · $0.0035 by list price · "
        f"stepstream trace {trace_id[:8]}\n"
    )


@pytest.mark.parametrize(
    ("code", "quiet"),
    [
        ("with stepstream.run(): pass\nstepstream.flush(60)", "true"),
        ("", "false"),
        ("stepstream.flush(); stepstream.close()", "false"),
    ],
)
def test_nothing_to_print(tmp_path: Path, code: str, quiet: str) -> None:
    """Quiet, or nothing done: nothing is printed."""
    done = program(tmp_path, MEMORY + code, STEPSTREAM_QUIET=quiet)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_endpoint(tmp_path: Path) -> None:
    """Without an endpoint the program runs on; one line, once, has what to do about it."""
    done = program(
        tmp_path,
        "import stepstream\nfor _ in range(3):\n"
        " with stepstream.run() as r, r.tool('x'): print('ran')",
    )
    assert (done.returncode, done.stdout) == (0, "ran\n" * 3)
    # Three runs, one line: a service would log it for every request.
    assert done.stderr.count("\n") == 1
    assert "stepstream up" in done.stderr
    assert "STEPSTREAM_ENDPOINT" in done.stderr


def test_switched_off(tmp_path: Path) -> None:
    """Switched off it prints nothing and does nothing."""
    done = program(
        tmp_path,
        "import stepstream\nwith stepstream.run(): print('ran')",
        STEPSTREAM_ENABLED="false",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_wrong_settings(tmp_path: Path) -> None:
    """A setting that cannot be stops the recording, not the program."""
    code = (
        "import stepstream\nstepstream.configure(projct='x')\nwith stepstream.run(): print('ran')"
    )
    done = program(tmp_path, code)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "projct" in done.stderr
    assert "Traceback" not in done.stderr


def test_brokers_that_are_away(tmp_path: Path) -> None:
    """Without brokers the end of a program waits some seconds at most; where its events are is
    printed.
    """
    code = """
import stepstream
with stepstream.run() as run, run.tool("find"):
    pass
"""
    # No program listens on port 1: connecting is refused at once.
    done = program(tmp_path, code, STEPSTREAM_ENDPOINT="kafka://127.0.0.1:1")
    assert done.returncode == 0
    last = done.stderr.splitlines()[-1]
    assert "4 events kept on disk until the next start (stepstream spool status)" in last
    assert "Connection refused" in done.stderr
    done = program(
        tmp_path, code, STEPSTREAM_ENDPOINT="kafka://127.0.0.1:1", STEPSTREAM_SPOOL_BYTES="0"
    )
    assert "4 events not delivered" in done.stderr.splitlines()[-1]


def test_an_agent_that_dies_of_an_exception(tmp_path: Path) -> None:
    """Its traceback is its own, its exit code stays, and its run is sent."""
    done = program(
        tmp_path,
        MEMORY + "try:\n"
        "    with stepstream.run() as run, run.tool('find'):\n"
        "        raise ValueError('no')\n"
        "finally:\n"
        "    stepstream.flush(60)\n",
    )
    assert done.returncode == 1
    assert "ValueError: no" in done.stderr
    assert "· 2 steps ·" in done.stderr.splitlines()[-1]


def test_steps_that_end_while_the_interpreter_does(tmp_path: Path) -> None:
    """A step that ends in a later exit handler, or in no handler at all, breaks nothing."""
    code = (
        "import atexit\n"
        + MEMORY
        + """
step = stepstream.tool("find").start()
atexit.register(lambda: step.end())
other = stepstream.tool("never ended").start()
"""
    )
    done = program(tmp_path, code)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_worker_process_sends_what_it_has(tmp_path: Path) -> None:
    """A forked ``multiprocessing`` worker, which leaves without exit handlers, waits for its events
    as a program does.
    """
    code = """
import multiprocessing, pathlib, stepstream
from stepstream.producers.transport.memory import MemoryTransport

class Slow(MemoryTransport):
    def poll(self, timeout_s):
        # Slow enough that a process that did not wait would leave before it.
        import time; time.sleep(0.05)
        super().poll(timeout_s)
        pathlib.Path("sent").write_text(str(len(self.records)))

def work():
    with stepstream.tool("in worker"):
        pass

if __name__ == "__main__":
    stepstream.configure(transport=Slow(), quiet=True)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
"""
    done = program(tmp_path, code)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert (tmp_path / "sent").read_text() == "2"


ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("totals", "counts", "line"),
    [
        (Totals(), Counts(), ""),
        (
            Totals(7, 1, 12_300_000, 0, ID),
            Counts(14, 14),
            "stepstream: run 4bf92f35… · 7 steps · $0.0123 by list price · "
            "stepstream trace 4bf92f35",
        ),
        (
            Totals(84, 12, 420_000_000, 3, ID, 2),
            Counts(168, 168),
            "stepstream: 12 runs · 84 steps · $0.42 by list price · "
            "3 steps without a known price · 2 model calls without usage · stepstream runs",
        ),
        (
            Totals(1, 1, 0, 0, ID),
            Counts(2, 1, 1, 5, 0),
            "stepstream: run 4bf92f35… · 1 step · 5 events dropped, the queue was full · "
            "1 event not delivered · "
            "stepstream trace 4bf92f35",
        ),
        (
            Totals(1, 1, 0, 0, ID),
            Counts(2, 0, 1, 0, 1),
            "stepstream: run 4bf92f35… · 1 step · 2 events not delivered",
        ),
        (
            Totals(1, 1, 0, 0, ID),
            Counts(9, 2, 1, 0, 6, 5),
            "stepstream: run 4bf92f35… · 1 step · 2 events not delivered · "
            "5 events kept on disk until the next start (stepstream spool status) · "
            "stepstream trace 4bf92f35",
        ),
        (Totals(), Counts(dropped=1_000), "stepstream: 1,000 events dropped, the queue was full"),
    ],
)
def test_the_line(totals: Totals, counts: Counts, line: str) -> None:
    """Runs, steps, cost, what was lost, and the command that shows it, where there is something to
    show.
    """
    assert exit_line(totals, counts) == line


def test_the_line_links_to_the_run() -> None:
    """Where the console's address is set; to the list where there were several runs."""
    counts = Counts(delivered=4)
    one = Totals(steps=2, runs=1, last_trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    line = exit_line(one, counts, "https://console.example.com/")
    assert line.endswith(
        f"stepstream trace 4bf92f35 · https://console.example.com/runs/{one.last_trace_id}"
    )
    assert exit_line(Totals(steps=4, runs=2), counts, "https://c.example").endswith(
        "https://c.example/runs"
    )
