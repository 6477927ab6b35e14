"""An installation with a console, a browser that is signed in, and steps to send."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from benchmarks.bench import scratch_folder
from stepstream.common.settings import load
from stepstream.console import address
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect

SIZE: Final = {"width": 1440, "height": 900}
STORED_S: Final = 300.0
SHOWN_S: Final = 120.0
_KINDS: Final = ("llm_call", "tool_call", "retrieval", "plan")


class Installation:
    """What ``stepstream up`` runs, and a browser."""

    def __init__(self, pipeline: Pipeline, browser: Any) -> None:
        self.pipeline = pipeline
        self.settings = pipeline.settings
        self.url = pipeline.console_url
        self.browser = browser
        self.context = browser.new_context(viewport=SIZE)
        self._topic = topic(self.settings.topic_prefix, "steps")
        self._producer = Producer(
            {**self.settings.kafka, "partitioner": "murmur2_random", "linger.ms": 2}
        )
        page = self.context.new_page()
        page.goto(self.link("/system"))
        page.get_by_text("This console").first.wait_for()
        page.close()

    def link(self, path: str) -> str:
        """An address that signs a browser in."""
        found = address.read(Path(self.settings.state_dir))
        assert found is not None
        return address.link(found, path)

    @property
    def cookie(self) -> str:
        """The browser's session, as a request's header has it."""
        return "; ".join(f"{one['name']}={one['value']}" for one in self.context.cookies())

    @property
    def console_pids(self) -> list[int]:
        return self.pipeline.pids()["console"]

    def send(self, event: dict[str, Any]) -> None:
        """Queue an event; where the producer's queue is full, wait."""
        value = json.dumps(event).encode()
        while True:
            try:
                self._producer.produce(
                    self._topic, value, event["trace_id"].encode(), headers=[*RECORD_HEADERS]
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        self._producer.flush(60)

    def run_of(self, steps: int) -> str:
        """Send a run with so many ended steps. Returns its id once the store has them."""
        trace_id = uuid.uuid4().hex
        start_us = time.time_ns() // 1_000 - 120_000_000
        for number in range(steps):
            self.send(step_event(trace_id, number, start_us + number * 1_000))
        self.flush()
        sql = f"SELECT count() FROM steps WHERE trace_id = '{trace_id}'"
        deadline = time.monotonic() + STORED_S
        with connect(self.settings) as client:
            while client.query(sql).result_rows[0][0] < steps:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{steps} steps were not stored within {STORED_S:g} s")
                time.sleep(0.5)
        return trace_id


def step_event(trace_id: str, number: int, now_us: int, **fields: Any) -> dict[str, Any]:
    """An end event; number 0 is the root, the others are its children."""
    return {
        "trace_id": trace_id,
        "step_id": f"{number + 1:016x}",
        "parent_step_id": f"{1:016x}" if number else "",
        "phase": "end",
        "kind": _KINDS[number % len(_KINDS)] if number else "agent",
        "name": f"step {number}",
        "project": "shop",
        "agent": "bench",
        "start_time": now_us,
        "end_time": now_us + 800,
        **fields,
    }


class Load:
    """Steps of several open runs at a rate, sent by a thread.

    ``sent_ms`` has when each step of the first run was given to the producer.
    """

    def __init__(self, installation: Installation, per_s: float, runs: int) -> None:
        self._installation = installation
        self._per_s = per_s
        self.trace_ids = [uuid.uuid4().hex for _ in range(runs)]
        self.sent_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        now_us = time.time_ns() // 1_000
        for trace_id in self.trace_ids:
            root = step_event(trace_id, 0, now_us, phase="start", end_time=None)
            self._installation.send(root)
        self.sent_ms.append(now_us / 1_000)
        self._installation.flush()
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop.set()
        self._thread.join()
        self._installation.flush()

    def _work(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.wait(0.01):
            due = int((time.monotonic() - began) * self._per_s)
            for number in range(sent, due):
                run, step = number % len(self.trace_ids), number // len(self.trace_ids) + 1
                now_us = time.time_ns() // 1_000
                self._installation.send(step_event(self.trace_ids[run], step, now_us))
                if run == 0:
                    self.sent_ms.append(now_us / 1_000)
            sent = due


def wait_for(page: Any, script: str) -> None:
    """Wait until an expression of JavaScript is true.

    Playwright's own wait evaluates the text in the page, which the page's policy refuses.
    """
    deadline = time.monotonic() + SHOWN_S
    while not page.evaluate(script):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {SHOWN_S:g} s: {script}")
        page.wait_for_timeout(20)


@contextmanager
def installed() -> Iterator[Installation]:
    """Start everything, and end it. Exits where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    with scratch_folder() as folder, sync_playwright() as playwright:
        settings = load(
            environ={},
            file=Path(os.devnull),
            state_dir=str(folder),
            data_dir=str(folder / "data"),
        )
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with Pipeline(settings) as pipeline:
            yield Installation(pipeline, browser)
        browser.close()
