"""The disk guard closes in time, opens with room to spare, and repeats what failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstream.local.embedded.disk import (
    DiskGuard,
    State,
    free_bytes,
    next_state,
    require_folder,
    require_space,
)
from stepstream.local.embedded.errors import DiskNearlyFull, FolderUnusable


def test_a_folder_that_cannot_be_used_is_reported_with_what_to_do(tmp_path: Path) -> None:
    """With the obstacle and the setting for another folder.

    A usable one is created and left empty.
    """
    require_folder(tmp_path / "new" / "data")
    assert list((tmp_path / "new" / "data").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(
            FolderUnusable,
            match=r"file is a file, not a folder; choose another one with --data-dir or STEP",
        ):
            require_folder(folder)
    with pytest.raises(
        FolderUnusable, match=r"/proc.*choose another one with --state-dir or STEPSTREAM_STATE_DIR"
    ):
        require_folder(Path("/proc/nothing"), "state_dir")


@pytest.mark.parametrize(
    ("state", "free", "wanted"),
    [
        ("open", 100, "open"),
        ("open", 99, "closed"),
        ("closed", 100, "closed"),
        ("closed", 124, "closed"),
        ("closed", 125, "open"),
        ("open", 25, "closed"),
        ("open", 24, "stopped"),
        ("closed", 0, "stopped"),
    ],
)
def test_the_door_follows_the_space(state: State, free: int, wanted: State) -> None:
    """Below the minimum closed, a quarter above it open again, below a quarter of it stopped."""
    assert next_state(state, free, 100) == wanted


class Door:
    """Records what a guard does with it; ``fails`` makes the next call fail."""

    def __init__(self, spaces: list[int]) -> None:
        self.done: list[str] = []
        self.logged: list[str] = []
        self.fails = False
        self._spaces: Iterator[int] = iter(spaces)

    def guard(self) -> DiskGuard:
        return DiskGuard(
            Path("/data"),
            close=lambda: self.act("close"),
            open=lambda: self.act("open"),
            stop=lambda: self.act("stop"),
            log=self.logged.append,
            min_free_bytes=100 << 20,
            free=lambda _folder: next(self._spaces) << 20,
        )

    def act(self, what: str) -> None:
        if self.fails:
            self.fails = False
            raise OSError("away")
        self.done.append(what)


def test_the_guard_acts_once_for_each_change() -> None:
    """Calls follow changes of state, each logged in one sentence with figures; stopped is final."""
    # Free MiB at each check: 110 is above the lower bound and below the one to open again.
    door = Door([200, 90, 80, 110, 130, 10])
    guard = door.guard()
    assert [guard.check() for _ in range(7)] == [
        "open",
        "closed",
        "closed",
        "closed",
        "open",
        "stopped",
        "stopped",
    ]
    assert door.done == ["close", "open", "stop"]
    assert [line.split(" MiB")[0] for line in door.logged] == ["90", "130", "10"]


def test_a_call_that_failed_is_repeated() -> None:
    """As long as closing has not worked the door is not taken for closed."""
    door = Door([90, 90])
    guard = door.guard()
    door.fails = True
    with pytest.raises(OSError, match="away"):
        guard.check()
    assert guard.state == "open"
    assert guard.check() == "closed"


def test_a_start_needs_some_space(tmp_path: Path) -> None:
    """The error has the figures; of a folder that does not exist yet its disk is measured."""
    # The folder is made by the start itself, after this check.
    assert free_bytes(tmp_path / "not" / "yet") > 0
    require_space(tmp_path, need=1, free=1)
    with pytest.raises(DiskNearlyFull, match=r"only 5 MiB are free .* at least 256 MiB"):
        require_space(tmp_path, free=5 << 20)
