"""The name that was most likely meant."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stepstream.schemas import suggestions
from stepstream.schemas.suggestions import MAX_NAME_CHARS, did_you_mean, nearest_name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("agnet", "agent"),
        ("AGENT", "agent"),
        ("ta", "task"),
        ("zebra", ""),
        ("", ""),
        ("agent" * MAX_NAME_CHARS, ""),
    ],
)
def test_a_near_name_is_suggested(name: str, near: str) -> None:
    """A slip, another case or a beginning suggests the name; anything else suggests nothing."""
    assert nearest_name(name, ["agent", "task"]) == near


def test_without_a_near_name_the_known_ones_are_listed() -> None:
    """The caller may have better words for it."""
    assert did_you_mean("zebra", ["agent", "task"]) == "there are: agent, task"
    assert did_you_mean("zebra", []) == "there are: none"
    assert did_you_mean("zebra", ["agent"], otherwise="see --help") == "see --help"


def test_suggesting_loads_no_package() -> None:
    """The SDK suggests names within an agent: neither pydantic nor another package is loaded."""
    code = (
        # By its path: importing it by name would load the package around it.
        "import runpy, sys; "
        f"made = runpy.run_path({suggestions.__file__!r}); "
        "made['did_you_mean']('agnet', ['agent']); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
