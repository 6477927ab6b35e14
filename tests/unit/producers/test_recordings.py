"""Recorded runs: what is written while a run goes on, and what a replay serves of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import json
import os
import random
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import stepstream
from stepstream.producers.recordings import recorder
from stepstream.schemas.recording import Recording, RecordingError
from stepstream.testing import recording
from stepstream.testing.replay import ReplayDiverged, read_recording, replaying

SECRET = "sk-proj-" + "abcdefghijklmnopqrstuvwx12345678"
made: list[str] = []
"""What reached the outside."""


class Order(BaseModel):
    number: int
    amount: Decimal


@dataclass
class Place:
    city: str


class OrderLost(Exception):
    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"order {number}: {reason}")
        self.reason = reason


@stepstream.tool
def find(number: int) -> Order:
    made.append("find")
    return Order(number=number, amount=Decimal("12.50"))


@stepstream.tool
def places() -> dict[Any, Any]:
    made.append("places")
    return {"b": (Place("Ulm"), b"\x00"), "a": {1, 2}, "nested": {3: None}}


@stepstream.tool
def losing(number: int) -> Order:
    made.append("losing")
    raise OrderLost(number, reason="moved")


@stepstream.llm
def pieces(question: str) -> Iterator[str]:
    made.append("pieces")
    yield from question.split()


@stepstream.llm
async def apieces(question: str) -> AsyncIterator[str]:
    made.append("apieces")
    for word in question.split():
        yield word


@stepstream.tool
async def later(number: int) -> int:
    made.append("later")
    await asyncio.sleep(0)
    return number + 1


@stepstream.tool
def outer() -> int:
    made.append("outer")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(find(8).number))
    thread.start()
    thread.join()
    return found[0]


draw = stepstream.recorded(random.random)


def flaky() -> int:
    made.append("flaky")
    if made.count("flaky") < 2:
        raise ConnectionError("reset")
    return 7


async def _asynchronous() -> str:
    return f"{await later(1)} {[word async for word in apieces('c d')]}"


@stepstream.agent
def agent(question: str) -> str:
    try:
        losing(3)
    except OrderLost as error:
        lost = error.reason
    parts = [
        find(1).amount + find(2).amount,
        repr(places()),
        lost,
        list(pieces("a b")),
        asyncio.run(_asynchronous()),
        outer(),
        draw(),
        stepstream.attempt("flaky", flaky, retries=1, wait_s=0.001),
    ]
    return f"{question}: {parts}"


@stepstream.agent
def changed(question: str) -> str:
    return f"{find(1).amount} {find(4).amount}"


@pytest.fixture
def record(tmp_path: Path) -> Any:
    """Runs a function with the recorder on; returns the recording's file."""

    def once(function: Any, *given: Any, **settings: Any) -> Path:
        folder = tmp_path / f"recordings-{random.random()}"
        made.clear()
        with recording(recordings=str(folder), **settings):
            function(*given)
        (file,) = folder.iterdir()
        return file

    return once


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a replay called outside")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_replay_gives_the_same_without_calling_anything(record: Any, no_network: None) -> None:
    """Models, dataclasses, sets, exceptions, streams, coroutines, threads, retries and chance."""
    file = record(agent, "refund")
    assert made.count("find") == 3
    made.clear()
    with replaying(file) as replay:
        answer = agent(replay.input)
    replay.assert_equal()
    assert replay.recording.output == answer
    assert (made, replay.made_live) == ([], 0)
    # The one of a served tool is not called.
    assert replay.recorded.only_run().tools.count("find") == 2


def test_fifty_replays_are_equal(record: Any, no_network: None) -> None:
    """Each with other values of chance."""
    for number in range(50):
        file = record(agent, f"question {number}")
        with replaying(file) as replay:
            agent(replay.input)
        replay.assert_equal()


def test_a_change_is_named_at_its_call(record: Any) -> None:
    file = record(agent, "refund")
    with replaying(file) as replay, pytest.raises(ReplayDiverged):
        changed(replay.input)
    assert "argument number is 4; recorded: 2" in replay.divergence
    assert replay.divergence.startswith("call 2, find (recorded step ")


def test_a_handler_of_the_agent_does_not_hide_a_divergence(record: Any) -> None:
    def careless(_question: str) -> None:
        try:
            find(99)
        except Exception:  # as agents do with failing tools
            return

    file = record(agent, "refund")
    with replaying(file) as replay, pytest.raises(ReplayDiverged):
        careless(replay.input)
    assert "find" in replay.divergence


@stepstream.agent
def short(_question: str) -> str:
    return str(find(1).number)


@stepstream.agent
def failing(_question: str) -> str:
    find(1)
    raise ValueError("no")


@stepstream.agent
def other_answer(_question: str) -> str:
    find(1)
    return "2"


@stepstream.agent
def unknown_tool(_question: str) -> str:
    places()
    return "1"


@pytest.mark.parametrize(
    ("recorded", "replayed", "words"),
    [
        (agent, short, "the run ended without call 1, losing, which was recorded"),
        (short, failing, "the run ended with ValueError: no; recorded: no error"),
        (short, other_answer, "all calls are equal, but the answer is '2'; recorded: '1'"),
        (short, unknown_tool, "call 1, places: the recording has no call of it; the next recorded"),
        (failing, failing, ""),
    ],
)
def test_what_differs_is_in_words(recorded: Any, replayed: Any, words: str, record: Any) -> None:
    def guarded(question: str) -> None:
        try:
            recorded(question)
        except ValueError:
            return

    file = record(guarded, "q")
    with replaying(file) as replay, contextlib.suppress(ValueError, ReplayDiverged):
        replayed(replay.input)
    assert words in replay.divergence
    assert bool(words) == bool(replay.divergence)


def test_a_tool_can_be_swapped_and_calls_made(record: Any) -> None:
    file = record(short, "q")
    made.clear()
    with replaying(file, swap={"find": lambda number: Order(number=number + 5, amount=Decimal(1))}):
        assert short("q") == "6"
    with replaying(file, live=["tools"]) as replay:
        changed("q")
    assert (made, replay.made_live) == (["find", "find"], 2)
    made.clear()
    with replaying(file, until=1) as replay:
        changed("q")
    assert (made, replay.made_live) == (["find"], 1)


def test_secrets_are_not_recorded_and_the_replay_goes_on(record: Any) -> None:
    @stepstream.tool
    def login(user: str) -> dict[str, str]:
        return {"user": user, "password": "correct horse", "key": SECRET}

    @stepstream.tool
    def use(key: str) -> str:
        return f"used {len(key)}"

    @stepstream.agent
    def using(_question: str) -> str:
        return use(login("ann")["key"])

    file: Path = record(using, SECRET)
    assert SECRET not in file.read_text()
    assert "correct horse" not in file.read_text()
    with replaying(file) as replay:
        using(replay.input)
    replay.assert_equal()
    assert [call.name for call in replay.recording.calls if call.is_redacted] == ["login"]


def test_a_name_with_the_form_of_a_secret_is_replaced_and_served(record: Any) -> None:
    """Names of tools come from servers, too."""

    @stepstream.tool(name=f"find {SECRET}")
    def named(number: int) -> int:
        made.append("named")
        return number

    @stepstream.agent(name=f"agent {SECRET}")
    def asking(question: str) -> str:
        with contextlib.suppress(OSError):
            places()
        return f"{question} {named(7)}"

    file = record(asking, "q", agent=f"shop {SECRET}", agent_version=SECRET)
    assert SECRET not in file.read_text()
    made.clear()
    with replaying(file) as replay:
        asking(replay.input)
    replay.assert_equal()
    assert not made
    with replaying(file) as replay, pytest.raises(ReplayDiverged) as raised:
        named(8)
    assert SECRET not in str(raised.value)


def nested_runs(count: int) -> None:
    """Runs that are open at the same time."""
    with stepstream.run(f"run {count}"):
        find(count)
        if count > 1:
            contextvars.Context().run(nested_runs, count - 1)


def ended(files: Iterable[Path]) -> list[bool]:
    """Whether each recording, from the oldest on, has its end."""
    by_time = sorted(
        files, key=lambda file: json.loads(file.read_text().split("\n")[0])["started_us"]
    )
    return ['"end":' in file.read_text() for file in by_time]


def test_the_runs_that_are_recorded_at_the_same_time_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a file open."""
    monkeypatch.setattr(recorder, "MAX_OPEN_RUNS", 2)
    with recording(recordings=str(tmp_path)):
        nested_runs(4)
        assert ended(tmp_path.iterdir()) == [True, True]
        nested_runs(2)
        assert ended(tmp_path.iterdir()) == [True] * 4


def test_a_run_that_was_abandoned_gives_way_to_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file has no end, so it is not taken for a whole recording."""
    monkeypatch.setattr(recorder, "MAX_OPEN_RUNS", 2)
    monkeypatch.setattr(recorder, "ABANDONED_S", 0.0)
    with recording(recordings=str(tmp_path)):
        nested_runs(4)
    assert ended(tmp_path.iterdir()) == [False, False, True, True]


def test_a_full_folder_is_counted_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the begin of each run, and after files were deleted runs are recorded again."""
    counts: list[Any] = []
    monkeypatch.setattr(recorder, "RECOUNT_S", 0.0)
    scandir = os.scandir

    def counted(folder: Path) -> Any:
        counts.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counted)
    with recording(recordings=str(tmp_path)):
        for _ in range(20):
            nested_runs(1)
        assert len(counts) == 1
        monkeypatch.setattr(recorder, "MAX_FILES", 21)
        nested_runs(2)
        files = list(tmp_path.iterdir())
        assert len(files) == 21
        files[0].unlink()
        nested_runs(1)
    assert len(list(tmp_path.iterdir())) == 21


def test_the_redaction_of_the_program_applies_on_both_sides(record: Any) -> None:
    @stepstream.agent
    def greeting(_question: str) -> str:
        return repr(list(pieces("hello Ann")))

    def redact(text: str) -> str:
        return text.replace("Ann", "X")

    file: Path = record(greeting, "q", redact=redact)
    assert "Ann" not in file.read_text()


def test_files_are_for_the_owner_alone(record: Any) -> None:
    file: Path = record(short, "q")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_what_has_no_recorded_form_is_named(record: Any) -> None:
    @stepstream.tool
    def handle() -> object:
        return object()

    @stepstream.agent
    def using(_question: str) -> str:
        handle()
        return "x"

    gaps = read_recording(record(using, "q")).gaps
    reason = "its result has a value of class builtins:object, which has no recorded form"
    assert gaps == (f"call 1, handle: {reason}",)


def shared(levels: int) -> list[Any]:
    """Lists that each contain the next one twice: few objects, 2**levels paths."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def test_values_that_contain_themselves_or_share_parts_do_not_disturb_the_agent(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepstream.producers.recordings.values.MAX_VALUES", 1_000)
    cyclic: list[Any] = []
    cyclic += [cyclic, cyclic]

    @stepstream.tool
    def cycle() -> object:
        return cyclic

    @stepstream.tool
    def sharing() -> object:
        return shared(50)

    @stepstream.agent
    def using(_question: str) -> int:
        return len(cycle()) + len(sharing())  # type: ignore[arg-type]

    gaps = read_recording(record(using, "q")).gaps
    reason = "its result has a value of class builtins:list, which has no recorded form"
    assert gaps == (f"call 1, cycle: {reason}", f"call 2, sharing: {reason}")


def test_pieces_that_cannot_be_read_do_not_disturb_the_agent(record: Any) -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, _: object) -> datetime.timedelta:
            raise RuntimeError("no zone")

    @stepstream.llm
    def times() -> Iterator[Any]:
        yield datetime.datetime(2026, 1, 1, tzinfo=Zone())  # type: ignore[abstract]

    @stepstream.agent
    def using(_question: str) -> int:
        return len(list(times()))

    file = record(using, "q")
    assert read_recording(file).gaps == ("call 1, times: it could not be recorded",)


def test_a_task_and_an_answer_of_any_text_end_in_a_whole_recording(tmp_path: Path) -> None:
    with recording(recordings=str(tmp_path)), stepstream.run("a", task=f"use {SECRET}") as run:
        run.set_output("half of a pair: \ud800")
    (file,) = tmp_path.iterdir()
    found = read_recording(file)
    assert found.task == "use [redacted]"
    assert SECRET not in file.read_text()


def test_a_recording_that_cannot_be_ended_leaves_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    with recording(recordings=str(tmp_path)), monkeypatch.context() as patched:
        patched.setattr("stepstream.producers.recordings.recorder.os.write", full)
        assert [short("q") for _ in range(20)] == ["1"] * 20
    assert len(os.listdir("/proc/self/fd")) < before + 20
    assert "No space left on device" in caplog.text


def test_a_folder_that_cannot_be_written_does_not_disturb_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with recording(recordings=str(tmp_path / "file")) as recorded:
        assert short("q") == "1"
    assert recorded.only_run().tools == ["find"]
    assert "internal error in recordings" in caplog.text


def test_a_forked_copy_writes_nothing_into_the_recording(record: Any) -> None:
    @stepstream.agent
    def forking(_question: str) -> str:
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            find(5)
            os._exit(0)
        return str(find(1).number)

    assert [call.number for call in read_recording(record(forking, "q")).calls] == [1]


# --- recordings that cannot be used ---


def edited(file: Path, change: Any) -> Path:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines))
    return file


def sealed(lines: list[Any]) -> None:
    """Give the lines the digest that they should have."""
    import hashlib

    text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines[:-1])
    lines[-1]["sha256"] = hashlib.sha256(text.encode()).hexdigest()


def other_version(lines: list[Any]) -> None:
    lines[0]["recording"] = 2


def edited_result(lines: list[Any]) -> None:
    lines[1]["outcome"]["result"] = 5


def planted_secret(lines: list[Any]) -> None:
    lines[1]["outcome"]["result"] = f"the key is {SECRET}"
    sealed(lines)


def without_end(lines: list[Any]) -> None:
    del lines[-1]


def wrong_fields(lines: list[Any]) -> None:
    del lines[1]["name"]
    sealed(lines)


def repeated_call(lines: list[Any]) -> None:
    lines.insert(1, lines[1])
    sealed(lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_version, "version 2 of the format; this release reads version 1"),
        (edited_result, "damaged or edited"),
        (planted_secret, "line 2: contains a secret"),
        (without_end, "it has no end"),
        (wrong_fields, "not a recording of this format"),
        (repeated_call, "the call 1 stands twice"),
        (list.clear, "line 1: not JSON"),
    ],
)
def test_recordings_that_cannot_be_used_are_refused(change: Any, words: str, record: Any) -> None:
    with pytest.raises(RecordingError, match=words):
        read_recording(edited(record(short, "q"), change))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe", "not a text in UTF-8"),
        (b"[1]", "not a JSON object"),
        (b'{"kind": "Policy"}', "not a recording"),
        (b'{"kind": "Incident", "events": []}', "the saved run has no recording"),
    ],
)
def test_other_files_are_refused(text: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(text)
    with pytest.raises(RecordingError, match=words):
        read_recording(file)
    with pytest.raises(RecordingError, match="no such file"):
        read_recording(tmp_path / "missing")


def test_a_class_that_is_not_imported_is_named_and_never_imported(record: Any) -> None:
    def other_class(lines: list[Any]) -> None:
        lines[1]["outcome"]["result"] = {"$": "model", "class": "antigravity:Plane", "v": {}}
        sealed(lines)

    with (
        replaying(edited(record(short, "q"), other_class)) as replay,
        pytest.raises(ReplayDiverged),
    ):
        short("q")
    assert "its class antigravity:Plane is not imported" in replay.divergence
    import sys

    assert "antigravity" not in sys.modules


def test_a_recording_has_what_the_run_was(record: Any) -> None:
    found: Recording = read_recording(record(agent, "refund"))
    assert (found.agent, found.input, found.error, found.gaps) == ("agent", "refund", "", ())
