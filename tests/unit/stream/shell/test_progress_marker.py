"""What was being processed when a worker was killed, and what the next start does with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from faust.types import TP

from stepstream.stream.core.poison import PoisonLedger
from stepstream.stream.shell.partition_runner import PartitionRunner, Restored
from stepstream.stream.shell.progress_marker import (
    HangTraces,
    ProgressMarker,
    Unfinished,
    marker_of,
)
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.watchdog import Watchdog
from tests.support.stage_world import STEPS, Processor, World, records
from tests.support.stream_world import START_US, Rec

AT_MS = START_US // 1000


class Dying(Exception):
    """Stands for the end of the process."""


def test_a_mark_is_there_after_the_process_has_ended(tmp_path: Path) -> None:
    mark = marker_of(tmp_path, TP("steps", 0))
    assert mark.unfinished is None
    mark.begin(5, 9, AT_MS)
    assert marker_of(tmp_path, TP("steps", 0)).unfinished == Unfinished(5, 9, -1, AT_MS)
    mark.record(5, 9, 7, AT_MS)
    assert marker_of(tmp_path, TP("steps", 0)).unfinished == Unfinished(5, 9, 7, AT_MS)
    mark.clear()
    assert marker_of(tmp_path, TP("steps", 0)).unfinished is None
    assert marker_of(tmp_path, TP("steps", 1)).unfinished is None


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 32, b"\x00" * 64])
def test_a_damaged_mark_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mark"
    path.write_bytes(content)
    assert ProgressMarker(path).unfinished is None


def test_a_folder_that_cannot_be_written_marks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mark = ProgressMarker(tmp_path / "file" / "a.mark")
    mark.begin(1, 2, 3)
    mark.clear()
    assert mark.unfinished is None


class Hanging(Processor):
    """Ends the process, as it were, at one offset."""

    deadly = 7

    def process(self, record: Any) -> None:
        if record.offset == self.deadly:
            raise Dying
        super().process(record)


def start(tmp_path: Path, notes: list[Any], *, hung: bool) -> tuple[PartitionRunner, Hanging]:
    world = World()
    ledger = PoisonLedger("steps", 0, "state")
    for note in notes:
        ledger.restore(note.value)
    shell, logic = (
        PartitionRunner(STEPS, 1, cast(Sender, world), world.safe_offsets, world),
        Hanging(),
    )
    mark = marker_of(tmp_path, STEPS)
    mark.has_hung = hung
    shell.loaded(Restored(logic, ledger, marker=mark))
    notes += [output for output, _ in world.sent]
    return shell, logic


def die(shell: PartitionRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends in the middle: nothing that would come after is done."""
    monkeypatch.setattr(shell, "processed", lambda: None)
    with pytest.raises(Exception, match="processing"):
        shell.process(records(0, 10))
    if shell.ledger is not None:
        shell.ledger._notes.clear()


def test_what_hangs_in_c_code_is_skipped_after_its_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[Any] = []
    for _ in range(4):  # the first one marks the chunk, each of the others the record
        shell, _ = start(tmp_path, notes, hung=True)
        die(shell, monkeypatch)
    shell, _ = start(tmp_path, notes, hung=True)
    skipped: list[int] = []
    monkeypatch.setattr(
        Hanging, "skip", lambda _self, record, _detail: skipped.append(record.offset), raising=False
    )
    shell.process(records(0, 10))
    assert skipped == [7]
    assert [msgspec.json.decode(note.value)["tries"] for note in notes] == [1, 2, 3]


def test_being_killed_is_no_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[Any] = []
    for _ in range(9):
        shell, _ = start(tmp_path, notes, hung=False)
        die(shell, monkeypatch)
    assert notes == []


def test_the_note_of_a_hang_names_the_record_that_is_processed() -> None:
    world = World()
    shell, logic = (
        PartitionRunner(STEPS, 1, cast(Sender, world), world.safe_offsets, world),
        Processor(),
    )
    shell.loaded(Restored(logic, PoisonLedger("steps", 0, "state")))
    shell.process(records(0, 3))
    note = shell.hung("it hangs")
    assert note is not None
    assert msgspec.json.decode(note.value or b"")["offset"] == 2


def test_traces_of_processes_that_have_ended_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "hang-999999999").write_text("Timeout (0:00:03)!\nThread ...")
    (tmp_path / f"hang-{os.getppid()}").write_text("alive")
    traces = HangTraces(tmp_path)
    assert traces.found.startswith("Timeout")
    assert traces.file is not None
    traces.close()
    again = HangTraces(tmp_path)
    assert again.found == ""
    again.close()
    assert (tmp_path / f"hang-{os.getppid()}").exists()


def test_a_watchdog_notes_before_it_bites() -> None:
    done: list[str] = []
    dog = Watchdog(
        0.01,
        lambda reason: done.append(f"end {reason}"),
        lambda reason: done.append(f"note {reason}"),
    )
    dog._watch()
    assert [what.split()[0] for what in done] == ["note", "end"]


async def test_what_lies_in_the_dead_letter_is_not_sent_again() -> None:
    from stepstream.stream.core.deadletter import dead_letter

    world = World()
    shell, logic = (
        PartitionRunner(STEPS, 1, cast(Sender, world), world.safe_offsets, world),
        Processor(),
    )
    shell.loaded(Restored(logic, PoisonLedger("steps", 0, "state"), dead_lettered=frozenset({3})))
    acknowledged: list[int] = []
    letters = [
        dead_letter(Rec(offset, AT_MS, b"k", b"v", ()), "steps", 0, "r", "d")
        for offset in (2, 3, 4)
    ]
    logic.take_outputs = (  # type: ignore[method-assign]
        lambda: [letters.pop(0) for _ in range(len(letters))]
    )
    logic.acknowledged = (  # type: ignore[method-assign]
        lambda output: acknowledged.append(output.through)
    )
    shell.send_outputs()
    assert [output.through for output, _ in world.sent] == [2, 4]
    assert acknowledged == [3]
