"""The SDK over a real broker:

what a program does arrives, once, on the right partition, and the program never waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

import pytest
from confluent_kafka import Message

from stepstream.admin.topics import create_topics
from stepstream.common import endpoints, kafka
from stepstream.producers.propagation import propagate
from stepstream.producers.replay.replay import replay
from stepstream.producers.tracer import Tracer
from stepstream.schemas.accept import Accepted, accept
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step as StepRecord
from tests.support.processes import wait_until
from tests.support.sdk import logged
from tests.support.step_events import event

PARTITIONS = 6


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    made = Settings(
        kafka_brokers=kafka_bootstrap,
        topic_prefix=topic_prefix,
        partitions=PARTITIONS,
        project="shop",
        quiet=True,
    )
    create_topics(made)
    return made


def arrived(settings: Settings) -> list[StepRecord]:
    """Every record of the steps topic; each must be acceptable where it lies."""
    steps = []
    for message in kafka.read_to_end(settings, f"{settings.topic_prefix}.steps"):
        accepted = accept(
            message.value(),
            key=message.key(),
            partition=kafka.position_of(message)[0],
            partitions=PARTITIONS,
            timestamp_us=message.timestamp()[1] * 1_000,
            headers=headers_of(message),
        )
        assert isinstance(accepted, Accepted), accepted
        assert accepted.clamped == ()
        steps.append(accepted.step)
    return steps


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    headers = message.headers()
    assert dict(headers or []) == {
        "content-type": b"application/json",
        "stepstream-schema": b"step/1",
    }
    return headers  # type: ignore[return-value]


def test_a_fleet_of_runs_arrives(settings: Settings) -> None:
    """Runs of threads and tasks at once:

    every event is on the topic exactly once, each run on one partition, starts first.
    """
    tracer = Tracer(settings)

    def work(number: int) -> None:
        with tracer.run(f"thread{number}", input={"n": number}) as run:
            with run.llm("plan", model="gpt-4o", provider="openai") as step:
                step.set_usage(input_tokens=100, output_tokens=10)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(propagate(find), range(3)))

    def find(number: int) -> None:
        with tracer.tool("find", input=number) as step:
            step.set_output("x" * 2_000)

    async def agent(number: int) -> None:
        async with tracer.run(f"task{number}"):
            await asyncio.gather(*(tool(n) for n in range(4)))

    async def tool(number: int) -> None:
        async with tracer.tool("find", input=number):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(agent(number) for number in range(20)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert tracer.close(30)
    counts = tracer.counts
    # A start and an end of 40 runs with five steps each.
    assert counts.delivered == counts.enqueued == 2 * 40 * 5
    steps = arrived(settings)
    keys = Counter((step.trace_id, step.step_id, step.phase) for step in steps)
    assert len(keys) == 400
    assert set(keys.values()) == {1}
    runs = Counter(step.trace_id for step in steps)
    assert len(runs) == 40
    assert set(runs.values()) == {10}
    begun: set[str] = set()
    for step in steps:
        if step.phase == "start":
            begun.add(step.step_id)
        # The topic has several partitions, but a run is in one, in order.
        assert step.step_id in begun
        assert not step.parent_step_id or step.parent_step_id in begun
    plans = [step for step in steps if step.name == "plan" and step.phase == "end"]
    assert {step.cost_source for step in plans} == {"priced"}


def test_events_are_there_at_once(settings: Settings) -> None:
    """A start event is on the broker while its step is still open."""
    tracer = Tracer(settings)
    # The first send waits for the connection; it is not what is tested.
    with tracer.tool("warm"):
        pass
    assert tracer.flush(30)
    with tracer.tool("find"):
        wait_until(lambda: tracer.counts.pending == 0, 30, "every event sent")
        assert [step.phase for step in arrived(settings) if step.name == "find"] == ["start"]
    assert tracer.close(30)


@pytest.mark.parametrize("found", ["by the environment", "by a running up"])
def test_a_program_of_ten_lines(settings: Settings, tmp_path: Path, found: str) -> None:
    """With an endpoint, or finding it by itself:

    at its end everything is on the broker, without a flush.
    """
    (tmp_path / "agent.py").write_text(
        """
import stepstream

@stepstream.tool
def lookup(order: int) -> dict:
    return {"order": order, "paid": True}

@stepstream.agent(task="refund")
def support(question: str) -> str:
    return f"paid: {lookup(7)['paid']}"

print(support("was order 7 paid?"))
"""
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")},
        "STEPSTREAM_STATE_DIR": str(tmp_path),
        "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": os.getcwd(),
    }
    if found == "by the environment":
        environment["STEPSTREAM_ENDPOINT"] = f"kafka://{settings.kafka_brokers}"
    else:
        endpoints.write(
            tmp_path, endpoints.Endpoints(settings.kafka_brokers, "http://127.0.0.1:1", os.getpid())
        )
    done = subprocess.run(
        # A warning, such as one about an unclosed socket, would be the program's problem.
        [sys.executable, "-W", "error", "agent.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    steps = arrived(settings)
    assert done.stdout == "paid: True\n"
    short = steps[0].trace_id[:8]
    assert done.stderr == f"stepstream: run {short}… · 2 steps · stepstream trace {short}\n"
    assert [(step.name, step.phase) for step in steps] == [
        ("support", "start"), ("lookup", "start"), ("lookup", "end"), ("support", "end"),
    ]  # fmt: skip
    assert {step.agent for step in steps} == {"support"}


def test_a_topic_that_is_not_there(kafka_bootstrap: str, topic_prefix: str) -> None:
    """Without topics one line with the command that creates them; events are kept, and sent when
    the topics are there.
    """
    settings = Settings(
        kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, partitions=PARTITIONS, quiet=True
    )
    tracer = Tracer(settings)
    with logged() as words:
        with tracer.tool("find"):
            pass
        assert not tracer.flush(2.5)
    assert any("stepstream topics create" in word.getMessage() for word in words)
    create_topics(settings)
    assert tracer.close(30)
    assert len(arrived(settings)) == 2


class LatePort:
    """A port of its own that leads to another once it is opened; before, connecting is refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._pipes: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._socket, *self._pipes):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def open(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._socket.accept()
                outside = socket.create_connection(("127.0.0.1", self._target))
                self._pipes += (inside, outside)
                for a, b in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_brokers_that_come_later(settings: Settings) -> None:
    """Events of a program that began before its broker could be reached arrive when it can; nothing
    is lost or doubled.
    """
    # A port of its own in front of the shared broker: stopping that one would fail other tests.
    port = int(settings.kafka_brokers.rpartition(":")[2])
    with LatePort(port) as late:
        tracer = Tracer(settings.model_copy(update={"kafka_brokers": f"127.0.0.1:{late.port}"}))
        with logged():
            for number in range(50):
                with tracer.tool(f"tool{number}"):
                    pass
            assert not tracer.flush(1)
            # A start and an end each, still in memory.
            assert tracer.counts.pending == 100
            late.open()
            assert tracer.flush(30)
            assert tracer.close(30)
    assert tracer.counts.delivered == 100
    assert (
        len({(step.step_id, step.phase) for step in arrived(settings)})
        == len(arrived(settings))
        == 100
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_workers(settings: Settings, tmp_path: Path) -> None:
    """Workers forked in the middle of a run send their own steps of it over connections of their
    own, the parent the rest.
    """
    (tmp_path / "agent.py").write_text(
        """
import multiprocessing, stepstream

def work(number):
    with stepstream.tool(f"worker{number}"):
        return number

if __name__ == "__main__":
    with stepstream.run("parent") as run:
        with run.tool("before"):
            pass
        assert stepstream.flush(30)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, range(6)) == list(range(6))
            pool.close()
            pool.join()
        with run.tool("after"):
            pass
    assert stepstream.close(30)
"""
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")},
        "STEPSTREAM_ENDPOINT": f"kafka://{settings.kafka_brokers}",
        "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "agent.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    ended = {step.name: step for step in arrived(settings) if step.phase == "end"}
    assert set(ended) == {"parent", "before", "after", *(f"worker{number}" for number in range(6))}
    assert {step.parent_step_id for name, step in ended.items() if name != "parent"} == {
        ended["parent"].step_id
    }
    assert len(arrived(settings)) == 2 * len(ended)


# The ways in which servers and pools fork, each right after the first step: the client's threads
# are then in the middle of connecting.
FORKING = {
    "inside a run": """
with stepstream.run("parent") as run:
    child = os.fork()
    if not child:
        with stepstream.run("child"):
            pass
        leave()
    wait(child)
""",
    "at once, eight times": """
with stepstream.run("parent") as run, run.tool("before"):
    pass
children = []
for number in range(8):
    children.append(os.fork())
    if not children[-1]:
        with stepstream.run(f"child{number}"), stepstream.llm("call", model="gpt-4o") as step:
            step.set_usage(input_tokens=10, output_tokens=10)
        leave()
wait(*children)
""",
    "a pool": """
import multiprocessing

def work(number):
    with stepstream.run(f"child{number}"):
        return number

with stepstream.run("parent"):
    pass
with multiprocessing.get_context("fork").Pool(4) as pool:
    pool.map(work, range(8))
    pool.close()
    pool.join()
""",
    "workers that serve": """
import socket

listening = socket.create_server(("127.0.0.1", 0))
with stepstream.run("parent"), stepstream.llm("warm", model="gpt-4o") as step:
    step.set_usage(input_tokens=10, output_tokens=10)
workers = []
for _ in range(3):
    workers.append(os.fork())
    if not workers[-1]:
        while True:
            client, _ = listening.accept()
            request = client.recv(100).decode()
            if request == "stop":
                leave()
            with stepstream.run(request):
                client.sendall(b"done")
            client.close()
for request in [*(f"child{number}" for number in range(9)), "stop", "stop", "stop"]:
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(request.encode())
        client.recv(100)
wait(*workers)
""",
}
FORK_PROGRAM = """
import os, stepstream

def leave():
    assert stepstream.close(60)
    os._exit(0)

def wait(*children):
    for child in children:
        assert os.waitpid(child, 0)[1] == 0

{body}
assert stepstream.close(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("way", "children"),
    [("inside a run", 1), ("at once, eight times", 8), ("a pool", 8), ("workers that serve", 9)],
)
def test_forks_soon_after_the_first_step(
    way: str, children: int, settings: Settings, tmp_path: Path
) -> None:
    """While the first step's connection is still being made:

    everything that parent and children record arrives.
    """
    (tmp_path / "agent.py").write_text(FORK_PROGRAM.format(body=FORKING[way]))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")},
        "STEPSTREAM_ENDPOINT": f"kafka://{settings.kafka_brokers}",
        "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "agent.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    names = [step.name for step in arrived(settings) if step.phase == "end"]
    assert len(names) == len(set(names) - {"call"}) + names.count("call")
    assert len([name for name in names if name.startswith("child")]) == children
    assert "parent" in names


def test_a_recording_is_replayed(settings: Settings, tmp_path: Path) -> None:
    """A replay puts every good line on the topic, on the partition of its new id."""
    lines = [
        json.dumps(event(trace_id=f"{number + 1:032x}", step_id=f"{number + 1:016x}"))
        for number in range(3_000)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{"]))
    report = replay(tmp_path / "a.jsonl", settings, speed=0)
    assert (report.lines, report.delivered, report.bad, report.runs) == (3_001, 3_000, 1, 3_000)
    assert len({step.trace_id for step in arrived(settings)}) == 3_000
