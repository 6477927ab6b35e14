"""The watchdog: who stands still is ended, who works or was stopped as a whole is not."""

from __future__ import annotations

import threading

from stepstream.stream.shell.watchdog import TURNS, Watchdog


def test_it_ends_the_process_after_all_its_turns_without_progress() -> None:
    """And not one earlier."""
    dog = Watchdog(20)
    dog.beat()
    assert [dog.check() for _ in range(TURNS)] == [""] * TURNS
    assert dog.check() == "its event loop has not run for 20 s"


def test_a_beat_begins_the_count_anew() -> None:
    """However few there are."""
    dog = Watchdog(20)
    for _ in range(5):
        dog.beat()
        assert not any(dog.check() for _ in range(TURNS))


def test_it_watches_in_a_thread_of_its_own() -> None:
    """Nothing of the loop that stands still is needed."""
    bitten = threading.Event()
    dog = Watchdog(0.1, lambda _reason: bitten.set())
    dog.start()
    assert bitten.wait(5)


def test_asleep_it_never_bites() -> None:
    """No patience at all means none is wanted."""
    bitten = threading.Event()
    dog = Watchdog(0, lambda _reason: bitten.set())
    dog.start()
    assert not bitten.wait(0.1)
