"""A process does not fork while another thread of the SDK imports or connects."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from stepstream.producers import forks
from stepstream.producers.forks import CONNECT_WAIT_S, ForkLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_a_fork_waits_for_an_import_under_way() -> None:
    """The fork goes on when the import is done, and imports go on after it."""
    fork_lock, importing, go_on = ForkLock(), threading.Event(), threading.Event()
    order: list[str] = []

    def load() -> None:
        with fork_lock.importing():
            importing.set()
            go_on.wait(30)
            order.append("imported")

    def fork() -> None:
        fork_lock.before_fork()
        order.append("forked")
        fork_lock.after_fork_in_parent()

    threads = [threading.Thread(target=load), threading.Thread(target=fork)]
    threads[0].start()
    assert importing.wait(30)
    threads[1].start()
    assert order == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert order == ["imported", "forked"]
    with fork_lock.importing():
        order.append("again")
    fork_lock.after_fork_in_child()
    with fork_lock.importing():
        order.append("in a child")


def test_a_fork_waits_for_first_connections() -> None:
    """The fork goes on when each client has reached a broker or stopped trying."""
    fork_lock, listener, sender = ForkLock(), object(), object()
    order: list[str] = []
    fork_lock.connecting(listener)
    fork_lock.connecting(sender)

    def connect() -> None:
        for client in (listener, sender):
            order.append("connected")
            fork_lock.connected(client)

    thread = threading.Timer(0.05, connect)
    thread.start()
    fork_lock.before_fork()
    order.append("forked")
    fork_lock.after_fork_in_parent()
    thread.join(30)
    assert order == ["connected", "connected", "forked"]


def test_a_fork_waits_once_for_brokers_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a wait that timed out, later forks and the child do not wait for the same client."""
    pauses: list[float] = []
    times = itertools.count(step=CONNECT_WAIT_S / 8)  # exact in binary
    monkeypatch.setattr(
        forks, "time", SimpleNamespace(monotonic=times.__next__, sleep=pauses.append)
    )
    fork_lock = ForkLock()
    for client in (object(), object()):
        fork_lock.connecting(client)
        fork_lock.before_fork()
        assert len(pauses) == 7
        fork_lock.before_fork()
        assert len(pauses) == 7
        pauses.clear()
    fork_lock.connecting(object())
    fork_lock.after_fork_in_child()
    fork_lock.before_fork()
    assert not pauses


def test_a_thread_that_imports_may_fork() -> None:
    """The lock does not make a thread wait for itself."""
    fork_lock = ForkLock()
    with fork_lock.importing():
        fork_lock.before_fork()
        fork_lock.after_fork_in_parent()


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
