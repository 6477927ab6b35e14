"""The console's front end: its own tests, types and style, run with Node."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.node import needs_node, run_node
from tests.support.paths import ROOT

WEB: Final = ROOT / "console/web"
MODULES: Final = WEB / "node_modules"
pytestmark = [
    needs_node,
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
    run_node(str(MODULES / script), *arguments, folder=WEB)
