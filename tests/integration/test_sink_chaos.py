"""Sinks, store and broker killed and frozen at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.sink_chaos import play


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_step_is_stored_once_whatever_is_killed_or_frozen(tmp_path: Path, seed: int) -> None:
    """Two sinks under load, some of it sent twice: in the end all counts are exact, in the views
    and in the rollups.
    """
    print(play(tmp_path, 90, seed))
