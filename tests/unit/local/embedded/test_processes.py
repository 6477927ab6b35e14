"""Children end with their owner, whatever ends it; a folder has one owner; ports are kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stepstream.common.process import Identity, end_leftover, identity_of
from stepstream.local.embedded import instance
from stepstream.local.embedded.errors import FolderInUse, FolderMismatch, PortTaken, StartFailed
from stepstream.local.embedded.lock import FolderLock
from stepstream.local.embedded.ports import free_ports, is_free
from stepstream.local.embedded.properties import (
    OFFSETS_RETENTION_DAYS,
    Node,
    broker_properties,
    render,
)
from stepstream.local.processes.child import EngineChild
from tests.support.processes import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
]


def known(pid: int) -> Identity:
    found = identity_of(pid)
    assert found is not None
    return found


def test_a_child_is_asked_then_killed(tmp_path: Path) -> None:
    """stop() asks first and returns whether that was enough."""
    child = EngineChild(SLEEP, tmp_path / "out")
    assert child.running
    assert child.stop(10)
    assert not child.running
    stubborn = EngineChild(STUBBORN, tmp_path / "stubborn")
    wait_until(lambda: bool(stubborn.last_output()), 10, "output of the child")
    assert not stubborn.stop(0.3)
    assert identity_of(stubborn.pid) is None


def test_a_childs_end_is_seen(tmp_path: Path) -> None:
    """Exit code and last output are the engine's own; sending to an ended child does nothing."""
    child = EngineChild(
        [sys.executable, "-c", "print('last words'); raise SystemExit(7)"], tmp_path / "out"
    )
    assert child.wait(10)
    assert (child.exit_code, child.last_output()) == (7, "last words")
    child.send("kill")
    # A shell's convention: 128 and the number of the signal.
    killed = EngineChild(SLEEP, tmp_path / "killed")
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(10)
    assert killed.exit_code == 128 + signal.SIGKILL


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A failed start names the program."""
    with pytest.raises(StartFailed, match="/no/such/program"):
        EngineChild(["/no/such/program"], tmp_path / "out")


OWNER = """
import os, sys, threading, time
from pathlib import Path
from stepstream.local.processes.child import EngineChild
started = []
def start():
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    started.append(EngineChild(command, Path(sys.argv[1]) / "out"))
thread = threading.Thread(target=start); thread.start(); thread.join()
time.sleep(1.5)                     # the thread that started it has ended: the child must not
assert started[0].running
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(60)                  # a copy of the owner that keeps its files open
    os._exit(0)
print(started[0].pid, os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
@pytest.mark.parametrize("way", ["plain", "fork"])
def test_a_child_ends_when_its_owner_is_killed(tmp_path: Path, way: str) -> None:
    """SIGKILL of the owner ends the child, also when a forked copy of the owner lives on.

    A thread's end does not.
    """
    command = [sys.executable, "-W", "ignore", "-c", OWNER, str(tmp_path), way]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert owner.stdout is not None
    child = known(int(owner.stdout.readline().split()[0]))
    owner.kill()
    owner.wait()
    wait_until(lambda: identity_of(child.pid) != child, 10, "the child to end")
    os.killpg(owner.pid, signal.SIGKILL) if way == "fork" else None
    owner.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a death signal of the kernel")
def test_a_child_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    """Even the watcher may be killed."""
    child = EngineChild(SLEEP, tmp_path / "out")
    launcher = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
    child_known = known(child.pid)
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: identity_of(child.pid) != child_known, 10, "the child to end")
    assert child.wait(5)


def test_a_leftover_is_ended_only_if_it_is_the_same_process() -> None:
    """A process with the recorded pid but another start time is an unrelated one."""
    process = subprocess.Popen(SLEEP)
    found = known(process.pid)
    assert end_leftover(Identity(found.pid, "another beginning"), grace=0.2)
    assert process.poll() is None
    assert end_leftover(found, grace=0.4)
    assert process.wait(5) == -signal.SIGTERM


def test_a_lock_has_one_owner_and_is_released(tmp_path: Path) -> None:
    """The second is refused with the first one's pid; after release the folder is free."""
    first, second = FolderLock(tmp_path / "new", "a store"), FolderLock(tmp_path / "new", "a store")
    first.acquire()
    with pytest.raises(
        FolderInUse, match=rf"a store already works on .*new \(process {os.getpid()}\)"
    ):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()
    # The folder has the store's data: other users of the machine may not read it.
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """The operating system releases it, however its owner ended."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from stepstream.local.embedded.lock import FolderLock\n"
        "FolderLock(Path(sys.argv[1]), 'x').acquire(); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(FolderInUse, match=f"process {owner.pid}"):
            FolderLock(tmp_path, "x").acquire()
        owner.kill()
    lock = FolderLock(tmp_path, "x")
    lock.acquire()
    lock.release()


def test_ports_that_are_listened_on_are_not_free() -> None:
    """A port is free when a server could listen on it now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])
    assert all(is_free(port) for port in free_ports(3))


def test_ports_are_kept_where_they_are_free(tmp_path: Path) -> None:
    """A start takes the ports of the last one, each unless it is taken.

    A given port always or not at all.
    """
    saved = instance.Instance("cluster", (Node(0, 1001, 1002), Node(1, 1003, 1004)))
    same = instance.plan(
        saved, count=2, port=0, folder=tmp_path, setting="kafka_port", free=lambda _port: True
    )
    assert same == saved
    moved = instance.plan(
        saved,
        count=2,
        port=0,
        folder=tmp_path,
        setting="kafka_port",
        free=lambda port: port != 1003,
    )
    assert moved.nodes[0] == saved.nodes[0]
    assert moved.nodes[1].broker_port not in (1001, 1002, 1003, 1004)
    assert moved.nodes[1].controller_port == 1004
    given = instance.plan(
        saved, count=2, port=2000, folder=tmp_path, setting="kafka_port", free=lambda _port: True
    )
    assert [node.broker_port for node in given.nodes] == [2000, 2001]
    fresh = instance.plan(
        None,
        count=2,
        port=0,
        folder=tmp_path,
        setting="x",
        prefer=9092,
        free=lambda port: port == 9092,
    )
    assert fresh.nodes[0].broker_port == 9092
    assert fresh.nodes[1].broker_port != 9093
    with pytest.raises(PortTaken, match=r"port 2001 .*kafka_port"):
        instance.plan(
            saved,
            count=2,
            port=2000,
            folder=tmp_path,
            setting="kafka_port",
            free=lambda port: port != 2001,
        )
    with pytest.raises(FolderMismatch, match="2 nodes, 3"):
        instance.plan(saved, count=3, port=0, folder=tmp_path, setting="kafka_port")


def test_the_folders_memory_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Written atomically.

    An unknown layout or an unreadable file is named and never overwritten.
    """
    assert instance.load(tmp_path) is None
    saved = instance.Instance(instance.new_cluster_id(), (Node(0, 1, 2),), (Identity(5, "then"),))
    instance.save(tmp_path, saved)
    assert instance.load(tmp_path) == saved
    file = tmp_path / "instance.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layout": 99}))
    with pytest.raises(FolderMismatch, match="layout 99"):
        instance.load(tmp_path)
    file.write_text("{")
    with pytest.raises(FolderMismatch, match="cannot be read"):
        instance.load(tmp_path)


def test_offsets_outlive_every_topic(tmp_path: Path) -> None:
    """A consumer that slept as long as the longest retention (30 days) finds its committed offset
    again.
    """
    node = Node(0, 1, 2)
    settings = broker_properties(node, [node], tmp_path)
    assert (
        int(settings["offsets.retention.minutes"])
        == OFFSETS_RETENTION_DAYS * 24 * 60
        > 30 * 24 * 60
    )
    assert "127.0.0.1" in settings["listeners"]
    assert settings["listeners"].count("127.0.0.1") == 2


def test_settings_are_written_as_java_reads_them() -> None:
    """Backslashes and letters beyond ASCII are escaped, beyond 16 bits as two units."""
    assert render({"a": "C:\\x é \U0001f600"}) == "a=C:\\\\x \\u00e9 \\ud83d\\ude00\n"
