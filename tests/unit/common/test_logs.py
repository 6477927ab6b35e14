"""Logs: quiet by default, one line a record, the same facts for people and for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from stepstream.common import logs, quiet
from stepstream.schemas.settings import Settings

worker = logging.getLogger("stepstream.worker")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The logging of the tests is left as it was."""
    root = logging.getLogger()
    known = ("", *logs.LOGGERS, *quiet.NOISY)
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in known}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_by_default_only_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy worker logs nothing; libraries that repeat themselves never log."""
    logs.configure(Settings())
    worker.info("loaded")
    worker.warning("the offset %s", "stands")
    # Once for each request during an outage; the worker logs the outage once.
    logging.getLogger("aiokafka").error("no broker")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("Z warning stepstream.worker: the offset stands")


def test_more_is_logged_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """``log_level`` is for our own words, with what they carry."""
    logs.configure(Settings.model_validate({"log_level": "info"}))
    worker.info("ready", extra={"topic": "steps", "partition": 3})
    logging.getLogger("other").info("not ours")
    assert capsys.readouterr().err.endswith(
        "info stepstream.worker: ready topic=steps partition=3\n"
    )


def test_programs_read_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, whatever is in it, tracebacks included."""
    logs.configure(Settings.model_validate({"log_format": "json"}))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        worker.exception("failed", extra={"offset": 7})
    (line,) = capsys.readouterr().err.splitlines()
    logged = json.loads(line)
    assert (logged["level"], logged["logger"], logged["message"], logged["offset"]) == (
        "error",
        "stepstream.worker",
        "failed",
        7,
    )
    assert "ValueError: two\nlines" in logged["error"]
    assert logged["time"].endswith("Z")
