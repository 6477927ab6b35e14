"""``make setup`` names a wrong Python, and leaves nothing of it that breaks the next setup."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

FAKE = """#!/bin/sh
# A Python of version {version}: answers the Makefile's questions; its venvs get a copy of it.
case "$1" in
  -V) echo "Python {version}" ;;
  -c) case "$2" in *version_info*) exit {too_old} ;; esac ;;
  -m) if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
      else echo "installed with {version}"; fi ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, and three Pythons next to it."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    for version in ("3.10.4", "3.11.7", "3.12.1"):
        python = tmp_path / f"python{version}"
        python.write_text(FAKE.format(version=version, too_old=int(version.startswith("3.10"))))
        python.chmod(0o755)
    return folder


def setup(project: Path, version: str) -> tuple[int, str]:
    """``make setup`` with that Python; exit code and output."""
    python = project.parent / f"python{version}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))
    }
    done = subprocess.run(
        [str(MAKE), "setup", f"PYTHON={python}"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_python_that_is_too_old_is_named_and_leaves_nothing(project: Path) -> None:
    """One sentence with its version; the right one then works."""
    code, output = setup(project, "3.10.4")
    assert code != 0
    assert "stepstream needs Python 3.11 or newer" in output
    assert "is Python 3.10.4" in output
    # A half-made environment would be taken for a good one at the next try.
    assert not (project / ".venv").exists()
    assert setup(project, "3.11.7")[0] == 0


def test_a_python_that_is_not_there_is_named(project: Path) -> None:
    """A mistyped path."""
    code, output = setup(project, "3.99")
    assert code != 0
    assert "python3.99 is" in output
    assert "make PYTHON=/path/to/python3.11" in output


@pytest.mark.parametrize("before", ["3.10.4", "3.12.1", "broken"])
def test_a_venv_of_another_python_is_made_anew(project: Path, before: str) -> None:
    """One that is too old, of another version, or whose Python is gone.

    A second run does nothing.
    """
    bin_folder = project / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    if before == "broken":
        (bin_folder / "python").symlink_to("/nowhere/python")
    else:
        shutil.copy(project.parent / f"python{before}", bin_folder / "python")
    (project / ".venv" / ".ready").touch()
    code, output = setup(project, "3.11.7")
    assert code == 0, output
    assert "making .venv anew" in output
    assert "installed with 3.11.7" in output
    code, output = setup(project, "3.11.7")
    assert (code, "installed" in output) == (0, False)
