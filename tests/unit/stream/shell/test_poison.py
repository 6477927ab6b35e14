"""Records that processing fails on: tried, skipped, halted at, resumed; without a broker."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from faust.types import TP

from stepstream.schemas.times import SECOND_MS
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.poison import (
    MAX_SKIPS,
    MAX_TRIES,
    SKIP_WINDOW_US,
    PoisonLedger,
    ProcessingFailed,
)
from stepstream.stream.shell.partition_runner import PartitionRunner, Restored
from stepstream.stream.shell.sender import Sender
from tests.support.stage_world import Processor
from tests.support.stream_world import START_US, Rec


class Failing(Processor):
    """Fails on some offsets, half-way through."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.bad = bad
        self.skipped: list[int] = []

    def process(self, record: Rec) -> None:
        super().process(record)
        if record.offset in self.bad:
            raise ZeroDivisionError("cannot")

    def skip(self, record: Rec, detail: str) -> None:
        self.skipped.append(record.offset)
        self.offsets.position = record.offset + 1


class Kafka:
    """What survives a worker: the notes, in order. Also who listens to a shell."""

    def __init__(self) -> None:
        self.notes: list[Output] = []
        self.findings: list[dict[str, Any]] = []
        self.counted: list[str] = []
        self.safe_offsets: dict[TP, tuple[int, str]] = {}
        self.tries = 0

    def send(self, output: Output, acknowledge: Any) -> None:
        if output.topic == "state":
            self.notes.append(output)
        elif b"partition-halted" in (output.value or b""):
            self.findings.append(msgspec.json.decode(output.value or b""))
        acknowledge(output, len(self.notes))

    def batch(self, records: int) -> None: ...
    def waited(self) -> None: ...
    def delivered(self, output: Output) -> None: ...
    def count(self, counter: str) -> None:
        self.counted.append(counter)

    def worker(self, bad: set[int]) -> tuple[PartitionRunner, Failing]:
        """A worker that has just started."""
        ledger = PoisonLedger("steps", 0, "state")
        for note in self.notes:
            assert ledger.owns(note.key or b"")
            ledger.restore(note.value or b"")
        shell, logic = (
            PartitionRunner(TP("steps", 0), 1, cast(Sender, self), self.safe_offsets, self),
            Failing(bad),
        )
        shell.loaded(Restored(logic, ledger))
        return shell, logic

    def work(
        self, records: list[Rec], bad: set[int], starts: int = 30
    ) -> tuple[PartitionRunner, Failing]:
        """Start workers until one gets through, or halts."""
        for _ in range(starts):
            shell, logic = self.worker(bad)
            try:
                shell.process(records)
            except ProcessingFailed as error:
                self.notes.append(error.note)
                self.tries += 1
                continue
            shell.send_outputs()
            return shell, logic
        raise AssertionError("no worker got through")


def log(count: int = 20, seconds: int = 1) -> list[Rec]:
    return [
        Rec(offset, START_US // 1000 + offset * seconds * SECOND_MS, b"k", b"v")
        for offset in range(count)
    ]


def test_a_record_is_tried_three_times_and_skipped() -> None:
    """And only it; the next start skips it again, whatever it would do now."""
    kafka = Kafka()
    shell, logic = kafka.work(log(), {7})
    assert (kafka.tries, logic.skipped, shell.halted, kafka.findings) == (MAX_TRIES, [7], False, [])
    assert 7 not in logic.fed
    assert logic.fed[-1] == 19
    _, corrected = kafka.work(log(), set())
    # Processed now it would be in a trajectory and in the dead letter.
    assert corrected.skipped == [7], "skipped before: its copy is in the dead letter"


def test_too_many_in_a_short_time_halt_the_partition() -> None:
    """The sixth stays: nothing from it on is processed or committed, in any number of starts."""
    kafka = Kafka()
    bad = set(range(3, 15))
    for _ in range(3):
        shell, logic = kafka.work(log(), bad, starts=60)
        assert shell.halted
        assert logic.skipped == [3, 4, 5, 6, 7][: len(logic.skipped)]
        assert max(kafka.safe_offsets.values(), default=(0, ""))[0] <= 8
        shell.send_outputs()
        shell.note_safe_offset()
        assert max(kafka.safe_offsets.values(), default=(0, ""))[0] <= 8
    # Five records are skipped after three tries each; the sixth halts the partition.
    assert kafka.tries == MAX_TRIES * (MAX_SKIPS + 1)
    # Each start reports it, and it is one alert.
    assert {finding["finding_id"] for finding in kafka.findings} == {
        kafka.findings[0]["finding_id"]
    }
    assert kafka.counted.count("halts") == 3


def test_as_many_over_a_long_time_do_not() -> None:
    """Log time counts: a record every few minutes is no bug that fails on everything."""
    kafka = Kafka()
    shell, logic = kafka.work(
        log(20, seconds=SKIP_WINDOW_US // 1_000_000 // MAX_SKIPS + 1), set(range(3, 15)), starts=60
    )
    assert (shell.halted, logic.skipped) == (False, list(range(3, 15)))


def test_a_mended_worker_goes_on_by_itself() -> None:
    """It processes the halted record, ends the alert, and does the same when it is read again."""
    kafka = Kafka()
    kafka.work(log(), set(range(3, 15)), starts=60)
    for _ in range(2):
        shell, logic = kafka.work(log(), set())
        assert (shell.halted, logic.skipped, logic.fed[3:5]) == (False, [3, 4, 5, 6, 7], [8, 9])
    assert [finding.get("state", "firing") for finding in kafka.findings] == ["firing", "resolved"]
    # The skips are forgotten first.
    kafka.notes = [note for note in kafka.notes if b'"offset":8,' in (note.value or b"")]
    _, later = kafka.work(log(), set())
    assert later.skipped == []


def test_people_can_let_it_skip_as_many_again() -> None:
    """After that it halts again; each permission is for what was skipped before it."""
    kafka = Kafka()
    bad = set(range(3, 15))
    kafka.work(log(), bad, starts=60)
    kafka.notes.append(PoisonLedger("steps", 0, "state").resume_note())
    shell, logic = kafka.work(log(), bad, starts=60)
    assert (shell.halted, logic.skipped) == (True, list(range(3, 13)))
    kafka.notes.append(PoisonLedger("steps", 0, "state").resume_note())
    shell, logic = kafka.work(log(), bad, starts=60)
    assert (shell.halted, logic.skipped) == (False, list(range(3, 15)))
    assert kafka.findings[-1]["state"] == "resolved"


@pytest.mark.parametrize(
    "key", [b"!poison|steps|1|5", b"!poison|findings|0|5", b"!fuse|steps|0", b"abc", b""]
)
def test_notes_of_others_are_left_alone(key: bytes) -> None:
    """Partitions and stages share topics."""
    assert not PoisonLedger("steps", 0, "state").owns(key)
