"""A process does not fork in the middle of what another thread of the SDK imports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from stepstream.producers.forks import Gate

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_a_fork_waits_for_an_import_under_way() -> None:
    """The fork goes on when the import is done, and imports go on after it."""
    gate, importing, go_on = Gate(), threading.Event(), threading.Event()
    order: list[str] = []

    def load() -> None:
        with gate.importing():
            importing.set()
            go_on.wait(30)
            order.append("imported")

    def fork() -> None:
        gate.before_fork()
        order.append("forked")
        gate.after_fork_in_parent()

    threads = [threading.Thread(target=load), threading.Thread(target=fork)]
    threads[0].start()
    assert importing.wait(30)
    threads[1].start()
    assert order == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert order == ["imported", "forked"]
    with gate.importing():
        order.append("again")
    gate.after_fork_in_child()
    with gate.importing():
        order.append("in a child")


def test_a_thread_that_imports_may_fork() -> None:
    """The gate does not make a thread wait for itself."""
    gate = Gate()
    with gate.importing():
        gate.before_fork()
        gate.after_fork_in_parent()


PROGRAM = """
import os, sys, stepstream
stepstream.configure(endpoint="kafka://127.0.0.1:1", quiet=True)
with stepstream.run() as run, run.llm("call", model="gpt-4o") as step:
    step.set_usage(input_tokens=1, output_tokens=1)
    if not os.fork():
        specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
        half = [spec.name for spec in specs if getattr(spec, "_initializing", False)]
        os._exit(1 if half else 0)
    assert os.wait()[1] == 0
os._exit(0)
"""


def test_no_module_is_half_made_in_a_child() -> None:
    """A child that is forked right after the first step has no half-imported module."""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
