"""The pytest fixture ``recorded``, which the installed plugin has as well.

Without that one, in a conftest.py: pytest_plugins = ["stepstream.testing.plugin"]
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
