"""The disk spool: committed events survive their process, the size is bounded, order is kept."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepstream.common.process import Identity, identity_of
from stepstream.producers.transport.base import Record
from stepstream.producers.transport.spool import DestinationStatus, Spool, SpoolError
from stepstream.schemas.accept import Accepted, accept_value
from tests.support.paths import ROOT
from tests.support.step_events import event

# Writes batches until it is killed; prints the last number of each batch after its commit.
WRITER = """
import sys
from pathlib import Path
from stepstream.producers.transport.base import Record
from stepstream.producers.transport.spool import Spool

spool, run = Spool(Path(sys.argv[1])), sys.argv[2].encode()
number = 0
while True:
    batch = []
    for _ in range(16):
        number += 1
        batch.append(Record(run, b'{"phase": "end", "number": %d}' % number))
    spool.put(batch)
    print(number, flush=True)
"""
DEAD = Identity(2**22 + 1, "never/0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "events.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    made = Spool(path)
    yield made
    made.close()


def record(number: int, run: bytes = b"run", phase: str = "end", **fields: Any) -> Record:
    return Record(run, json.dumps({"phase": phase, "number": number, **fields}).encode())


def numbers(spool: Spool) -> list[int]:
    return [json.loads(one.record.value)["number"] for one in spool.read(1_000_000)]


def test_events_come_back_in_order_until_they_are_deleted(spool: Spool) -> None:
    """Across batches and after closing; a page goes on after the id of the one before."""
    assert spool.put([record(1), record(2)]) == [1, 2]
    assert spool.put([record(3, b"other")]) == [3]
    spool.disconnect()
    first = spool.read(2)
    assert [one.record for one in first] == [record(1), record(2)]
    assert [one.record for one in spool.read(5, after=first[-1].id)] == [record(3, b"other")]
    assert spool.has_run(b"run")
    assert not spool.has_run(b"run", after=2)
    spool.delete([one.id for one in first])
    assert numbers(spool) == [3]
    assert not spool.has_run(b"run")
    assert spool.has_run(b"other")


def test_the_status_counts_events_runs_and_age(path: Path) -> None:
    """``oldest_us`` is the time at which the oldest event was spooled."""
    now = [1_000.0]
    spool = Spool(path, now_s=lambda: now[0])
    assert (spool.status().events, spool.status().oldest_us) == (0, 0)
    spool.put([record(1), record(2, b"other")])
    now[0] = 2_000.0
    spool.put([record(3)])
    status = spool.status()
    assert (status.events, status.runs, status.oldest_us) == (3, 2, 1_000_000_000)
    assert (status.dropped, status.shortened) == (0, 0)
    assert status.destinations == (DestinationStatus("", 3, 0, 0),)
    assert 0 < status.bytes < status.max_bytes
    spool.close()


def test_the_files_are_readable_for_their_user_alone(spool: Spool, path: Path) -> None:
    """Events contain prompts: the database and its WAL are 0600, a new folder is 0700."""
    spool.put([record(1)])
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    # SQLite makes the WAL itself, with the rights that the database has.
    assert set(files) >= {"events.db", "events.db-wal"}
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_committed_events_survive_kill_9(path: Path) -> None:
    """Writers of one file, killed while they write: what was committed is there, in order."""
    Spool(path).close()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"run{number}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(3)
    ]
    committed: dict[str, int] = {}
    for number, writer in enumerate(writers):
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(20):
                writer.stdout.readline()
            # In the middle of its transactions: it writes for as long as it lives.
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().splitlines()
        writer.wait(60)
        committed[f"run{number}"] = int(lines[-1]) if lines else 16 * 20
    spool = Spool(path)
    found: dict[str, list[int]] = defaultdict(list)
    assert len(spool.left_writers()) == 3
    for left in spool.left_writers():
        for one in spool.read(10_000_000, writer=left):
            found[one.record.key.decode()].append(json.loads(one.record.value)["number"])
    spool.close()
    for run, last in committed.items():
        assert found[run] == list(range(1, len(found[run]) + 1)), "no gap, in order"
        assert len(found[run]) >= last
        assert len(found[run]) % 16 == 0, "a batch is stored whole or not at all"
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_the_size_on_disk_is_bounded(path: Path) -> None:
    """The database and its WAL together; whatever is not stored is counted."""
    # 12 MB of events are written below.
    limit = 8_000_000
    spool = Spool(path, max_bytes=limit)
    stored, largest = 0, 0
    for number in range(300):
        ids = spool.put([record(number, input="x" * 4_000) for _ in range(10)])
        stored += sum(1 for one in ids if one)
        size = sum(file.stat().st_size for file in path.parent.iterdir() if "shm" not in file.name)
        largest = max(largest, size)
    status = spool.status()
    assert limit / 2 < largest <= limit
    assert status.events == stored
    assert stored + status.dropped == 3_000
    spool.close()


def test_a_full_spool_drops_starts_first_and_contents_before_ends(path: Path) -> None:
    """An end event alone is the complete record of its step, also without its contents."""
    spool = Spool(path, max_bytes=1)  # the smallest spool there is
    number = 0
    while not spool.status().dropped:
        number += 1
        spool.put([record(number, phase="start", input="x" * 4_000)])
    before = spool.status()
    assert before.dropped == 1, "a start makes no room for itself"
    ends = before.events
    for end in range(ends):
        assert spool.put([record(end, phase="end", input="y" * 4_000)]) != [0]
    phases = [json.loads(one.record.value)["phase"] for one in spool.read(1_000_000)]
    assert phases.count("end") == ends
    while not spool.status().shortened:
        assert spool.put([record(number, input="z" * 4_000)]) != [0]
    kept = [json.loads(one.record.value) for one in spool.read(1_000_000)]
    assert {one["phase"] for one in kept} == {"end"}
    assert any("input" not in one for one in kept)
    dropped = spool.status().dropped
    while spool.status().dropped == dropped:
        spool.put([record(number, name="n" * 4_000)])
    spool.close()


def test_an_event_without_its_contents_is_still_valid(path: Path) -> None:
    """What the spool sends after it was full passes ``accept``."""
    spool = Spool(path, max_bytes=1)
    value = json.dumps(event(phase="end", input="x" * 9_000, output="y")).encode()
    while not spool.status().shortened:
        spool.put([Record(b"run", value)])
    accepted = [
        accept_value(one.record.value, timestamp_us=json.loads(value)["start_time"])
        for one in spool.read(1_000_000)
    ]
    assert all(isinstance(one, Accepted) for one in accepted)
    assert "" in {one.step.input for one in accepted if isinstance(one, Accepted)}
    spool.close()


def test_one_living_process_drains_at_a_time(path: Path) -> None:
    """Another one may after the release, or after the lease has run out."""
    now = [1_000.0]
    me = identity_of(os.getpid())
    parent = identity_of(os.getppid())
    assert me is not None
    assert parent is not None
    first = Spool(path, lease_s=30, now_s=lambda: now[0], identity=me)
    second = Spool(path, lease_s=30, now_s=lambda: now[0], identity=parent)
    assert first.acquire()
    assert first.acquire(), "its own lease is renewed"
    assert not second.acquire()
    first.put([record(1)])
    assert second.status().destinations == (DestinationStatus("", 1, 0, me.pid),)
    second.release()
    assert not second.acquire(), "it cannot give the lease of another process back"
    first.release()
    assert second.acquire()
    now[0] += 31
    assert first.acquire(), "the lease has run out"
    assert not second.acquire()
    first.close()
    second.close()


def test_what_a_dead_process_left_is_taken_over(path: Path) -> None:
    """Its lease and its events. A pid that another process uses now is not the owner."""
    me = identity_of(os.getpid())
    assert me is not None
    # A process that has ended, and one whose pid another process has by now.
    for number, gone in enumerate((DEAD, Identity(me.pid, "another boot/1"))):
        dead = Spool(path, identity=gone)
        dead.put([record(number)])
        assert dead.acquire()
        living = Spool(path)
        living.put([record(10 + number)])
        assert living.status().destinations == (DestinationStatus("", 2, 1, 0),)
        assert living.acquire()
        [writer] = living.left_writers()
        [row] = living.read(10, writer=writer)
        assert json.loads(row.record.value)["number"] == number
        living.delete([row.id])
        assert living.left_writers() == []
        assert numbers(living) == [10 + number]
        living.delete([one.id for one in living.read(10)])
        living.close()
        dead.disconnect()


def test_events_are_for_their_destination_alone(path: Path) -> None:
    """Other settings send nothing of it, unless they are given all of it on request."""
    first = Spool(path, "kafka://a/stepstream")
    first.put([record(1)])
    first.close()
    other = Spool(path, "kafka://b/stepstream")
    assert other.left_writers() == []
    assert other.status().destinations == (DestinationStatus("kafka://a/stepstream", 1, 1, 0),)
    assert other.take_all() == 1
    assert len(other.left_writers()) == 1
    other.close()


def test_a_closed_spool_is_left_to_others(path: Path) -> None:
    """Its events are those of an ended process, although this process goes on."""
    first = Spool(path)
    first.put([record(1)])
    first.close()
    first.close()
    first.put([record(2)])
    assert numbers(first) == [2], "it is another writer now"
    [writer] = first.left_writers()
    assert [one.record for one in first.read(5, writer=writer)] == [record(1)]
    first.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_opens_the_file_anew(spool: Spool, path: Path) -> None:
    """Parent and child write to the same spool, each as a writer of its own."""
    spool.put([record(1)])
    child = os.fork()
    if not child:
        os._exit(0 if spool.put([record(2)]) == [2] and numbers(spool) == [2] else 1)
    assert os.waitpid(child, 0)[1] == 0
    spool.put([record(3)])
    assert numbers(spool) == [1, 3]
    assert len(spool.left_writers()) == 1
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_connection_that_came_with_a_fork_is_not_used(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file could not be closed before the fork, the child reports it and stays off."""
    monkeypatch.setattr(spool, "disconnect", lambda: None)
    spool.put([record(1)])
    child = os.fork()
    if not child:
        try:
            spool.put([record(2)])
        except SpoolError as error:
            os._exit(0 if "forked while the file was open" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.undo()


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """The error names the file."""
    Spool(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(SpoolError, match=r"events\.db cannot be used: version 9"):
        Spool(path)


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as a page"])
def test_a_file_that_cannot_be_used_is_an_error_with_its_name(path: Path, content: bytes) -> None:
    """A damaged file, a folder in its place."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content * 100)
    with pytest.raises(SpoolError, match=r"events\.db cannot be used: file is not a database"):
        Spool(path)
    folder = path.parent / "folder.db"
    folder.mkdir()
    with pytest.raises(SpoolError, match=r"folder\.db cannot be used"):
        Spool(folder)
