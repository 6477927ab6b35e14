"""A pytest plugin with the fixture ``recorded``; for a conftest.py:

pytest_plugins = ["stepstream.testing.plugin"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stepstream.testing.runs import Recorded, recording


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """What the program records during the test; nothing is sent."""
    with recording() as made:
        yield made
