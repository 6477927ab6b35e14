"""Real trajectories as step events, for tests and benchmarks.

The data lies outside the project, in ``$STEPSTREAM_DATA`` (default ``../shared/data`` from the
project's root), one folder a source; nothing of it is copied. Each reader yields runs: lists of
ended steps, parents before children where the source has them so, with the ids and times of the
source as far as it has any.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from stepstream.schemas.accept import truncated
from stepstream.schemas.step import StepEvent

# Inputs and outputs are cut to what the SDK sends by default.
MAX_CONTENT_BYTES: Final = 16_384


class MissingData(Exception):
    """The real data is not on this machine; the message names the folder."""


def data_folder(name: str) -> Path:
    """The folder of one source. Raises ``MissingData``."""
    root = (
        os.environ.get("STEPSTREAM_DATA")
        or Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    )
    folder = Path(root).resolve() / name
    if not folder.is_dir():
        raise MissingData(
            f"no real data at {folder}: set STEPSTREAM_DATA to the folder that holds {name}/"
        )
    return folder


def case_files(folder: Path) -> list[Path]:
    """The JSON files of a folder, compressed or not, by name.

    Raises ``MissingData`` where there are none.
    """
    found = sorted(
        path for path in folder.glob("*.json*") if path.name.endswith((".json", ".json.gz"))
    )
    if not found:
        raise MissingData(f"no cases (*.json, *.json.gz) in {folder}")
    return found


def read_json(path: Path) -> Any:
    """What a file of cases holds."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return json.load(file)
    return json.loads(path.read_text())


def content(text: str | None) -> tuple[str, int | None]:
    """A text cut as the SDK cuts it, and its size before where it was cut."""
    cut, size = truncated(text or "", MAX_CONTENT_BYTES)
    return cut, size if size > MAX_CONTENT_BYTES else None


def lifecycle(run: Iterable[StepEvent]) -> list[StepEvent]:
    """The run as it would have been published live: each step's start and its end, in the order
    of their times."""
    moments: list[tuple[int, int, StepEvent]] = []
    for step in run:
        moments.append((step.start_time, 0, started(step)))
        moments.append((step.end_time or step.start_time, 1, step))
    return [event for _, _, event in sorted(moments, key=lambda moment: moment[:2])]


def started(step: StepEvent) -> StepEvent:
    """What is known of a step when it begins."""
    unknown = {
        "end_time",
        "first_token_time",
        "status",
        "error_type",
        "error_message",
        "usage",
        "cost_usd",
        "cost_source",
    }
    unknown |= {"price_version", "output", "output_bytes", "documents"}
    return StepEvent.model_validate(step.model_dump(exclude=unknown) | {"phase": "start"})
