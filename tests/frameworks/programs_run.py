"""Runs programs of other frameworks: where their packages are, and the variables that each gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from web_build.bundle import BuildError, node_command, npm_command

PROGRAMS = ROOT / "tests" / "frameworks" / "programs"


def npm_install(folder: Path) -> None:
    """Install the packages of the folder's ``package.json``; skips where that cannot be done."""
    done = subprocess.run(
        [*_found(npm_command), "install", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm could not install the packages: {done.stderr.strip()[-200:]}")


def run_node(folder: Path, program: str, variables: dict[str, str]) -> str:
    """What a program in Node prints."""
    return _run([*_found(node_command), program], folder, {**os.environ, **variables})


def _found(command: Callable[[], list[str]]) -> list[str]:
    """A command of Node; skips where there is no Node."""
    try:
        return command()
    except BuildError as error:
        pytest.skip(str(error))


def run_python(program: str, variables: dict[str, str]) -> str:
    """What a program in Python prints; skips where a package that it imports is not installed."""
    return _run([sys.executable, f"{program}.py"], PROGRAMS, {**os.environ, **variables})


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
