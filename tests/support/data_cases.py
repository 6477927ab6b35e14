"""Real trajectories for tests: the readers of ``benchmarks.cases``, skipping clearly where the data
is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from benchmarks.cases import MissingData, data_folder, framework_traces, tau_bench, trail_gaia
from stepstream.schemas.step import StepEvent

Run = list[StepEvent]

READERS: Final[dict[str, Callable[[], Iterator[Run]]]] = {
    "trail_gaia": trail_gaia.runs,
    "tau_bench": tau_bench.runs,
    "otel_framework_traces": framework_traces.runs,
}


def real_runs(source: str) -> list[Run]:
    """Every run of a source; the test is skipped, naming what is missing, where the data is not on
    this machine."""
    real_data(source)
    return list(READERS[source]())


def real_data(source: str) -> Path:
    """The folder of a source, or the test is skipped."""
    try:
        return data_folder(source)
    except MissingData as missing:
        pytest.skip(str(missing))
