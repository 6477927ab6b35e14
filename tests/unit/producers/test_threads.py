"""Threads and thread pools keep the current step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepstream.producers import threads
from tests.support.sdk import Traced, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as one:
        yield one


def test_a_thread_belongs_to_the_step_that_started_it(made: Traced) -> None:
    """Also a subclass with a ``run`` of its own, and a timer."""

    def work() -> None:
        with made.tracer.tool("in thread"):
            pass

    class Worker(threading.Thread):
        def run(self) -> None:
            with made.tracer.tool("in subclass"):
                pass

    def late() -> None:
        with made.tracer.tool("in timer"):
            pass

    with made.tracer.run("agent") as run, run.tool("outer"):
        started = [threading.Thread(target=work), Worker(), threading.Timer(0.01, late)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    assert made.parents() == {
        "agent": "",
        "outer": "agent",
        "in thread": "outer",
        "in subclass": "outer",
        "in timer": "outer",
    }


def test_a_task_of_a_pool_belongs_to_the_step_that_submitted_it(made: Traced) -> None:
    """Each task of a pool that is shared by runs, and a task that no step submitted to none."""

    def work(name: str) -> None:
        with made.tracer.tool(name):
            pass

    # One thread for all runs: it must not keep the step of the task before.
    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            with made.tracer.run(f"run{number}"):
                list(pool.map(work, [f"a{number}", f"b{number}"]))
        pool.submit(work, "alone").result()
    assert made.parents() == {
        **{f"run{number}": "" for number in range(3)},
        **{f"{name}{number}": f"run{number}" for number in range(3) for name in "ab"},
        "alone": "",
    }


def test_executors_of_asyncio(made: Traced) -> None:
    """``run_in_executor`` and ``to_thread``, in tasks of two runs at once."""

    def work(name: str) -> None:
        with made.tracer.tool(name):
            pass

    async def agent(name: str) -> None:
        async with made.tracer.run(name):
            await asyncio.get_running_loop().run_in_executor(None, work, f"{name} executor")
            await asyncio.to_thread(work, f"{name} thread")

    async def main() -> None:
        await asyncio.gather(agent("one"), agent("two"))

    asyncio.run(main())
    parents = made.parents()
    assert {name: parent for name, parent in parents.items() if parent} == {
        f"{name} {way}": name for name in ("one", "two") for way in ("executor", "thread")
    }


def test_a_thread_that_outlives_its_run(made: Traced) -> None:
    """It adds to the run while that is open, and not afterwards."""
    # The thread works before and after the end of the run.
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        with made.tracer.tool("during"):
            done.set()
        go_on.wait(30)
        with made.tracer.run("after"):
            pass

    with made.tracer.run("agent"):
        thread = threading.Thread(target=work)
        thread.start()
        assert done.wait(30)
    go_on.set()
    thread.join()
    assert made.parents() == {"agent": "", "during": "agent", "after": ""}


def test_errors_and_results_are_those_of_the_function(made: Traced) -> None:
    """As without the SDK."""

    def fail() -> None:
        raise ValueError("no")

    with made.tracer.run("agent"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ValueError, match="no"):
            pool.submit(fail).result()
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        pool.submit(fail)


def test_a_function_that_others_put_back_is_wrapped_again(
    made: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a test that replaced ``Thread.start`` while recording began."""
    threads.restore()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _self: None)
        threads.keep_steps_in_threads()
    threads.keep_steps_in_threads()
    with made.tracer.run("agent"):
        thread = threading.Thread(target=lambda: made.tracer.tool("inside").start().end())
        thread.start()
        thread.join()
    assert made.parents() == {"agent": "", "inside": "agent"}


def test_the_original_functions_can_be_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are wrapped once, whatever the number of calls."""

    def plain(_self: threading.Thread) -> None:
        """Stand for the original: instrumentation of other tests may have wrapped the real one."""

    monkeypatch.setattr(threading.Thread, "start", plain)
    threads.keep_steps_in_threads()
    wrapped = threading.Thread.start
    assert wrapped is not plain
    threads.keep_steps_in_threads()
    assert threading.Thread.start is wrapped
    threads.restore()
    assert threading.Thread.start is plain
