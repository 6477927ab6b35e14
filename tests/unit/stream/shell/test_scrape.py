"""What a worker shows is read by the thread that processes records, while it processes none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstream.schemas.settings import Settings
from stepstream.stream.shell import worker
from stepstream.stream.shell.worker import Worker


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that was not started."""
    monkeypatch.setattr(worker, "marker_folder", lambda _settings: tmp_path)
    made = Worker(Settings(kafka_brokers="127.0.0.1:1"))
    yield made
    made.hang_traces.close()


def test_a_scrape_reads_in_the_thread_of_the_loop(
    made: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread would read runs that are being removed, and offsets that are being changed."""
    threads: list[int] = []
    monkeypatch.setattr(made, "_refresh_metrics", lambda: threads.append(threading.get_ident()))

    async def scrape() -> None:
        made._loop = asyncio.get_running_loop()
        await asyncio.to_thread(made._before_scrape)

    asyncio.run(scrape())
    assert threads == [threading.get_ident()]
    made._before_scrape()  # the loop has ended
    assert len(threads) == 1


def test_a_scrape_does_not_wait_for_a_loop_that_hangs(
    made: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last values are shown, and the watchdog reports the rest."""
    monkeypatch.setattr(worker, "SCRAPE_WAIT_S", 0.01)
    made._loop = asyncio.new_event_loop()  # it is never run
    made._before_scrape()
    made._loop.close()
