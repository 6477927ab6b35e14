"""Packs the TypeScript SDK: ``python web_build/typescript.py`` writes ``dist/stepstream-*.tgz``.

With ``--install-if-possible`` it only installs the packages that its tests need (compiler and
linter), and prints why where that cannot be done. The package itself depends on nothing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import bundle

ROOT: Final = Path(__file__).resolve().parent.parent
CLIENT: Final = ROOT / "clients/typescript"
TSC: Final = CLIENT / "node_modules/typescript/bin/tsc"


def pack(target: Path) -> None:
    """Compiles the SDK and writes the package that ``npm publish`` takes. Raises ``BuildError``."""
    bundle.install(CLIENT)
    shutil.rmtree(CLIENT / "dist", ignore_errors=True)
    node = bundle.node_command()
    bundle.run([*node, str(TSC), "-p", "tsconfig.build.json"], "the SDK does not compile", CLIENT)
    shutil.copy(ROOT / "LICENSE", CLIENT / "LICENSE")
    target.mkdir(parents=True, exist_ok=True)
    command = [*bundle.npm_command(), "pack", "--pack-destination", str(target)]
    try:
        bundle.run(command, "npm pack failed", CLIENT)
    finally:
        (CLIENT / "LICENSE").unlink()


def main(arguments: Sequence[str]) -> int:
    try:
        if "--install-if-possible" in arguments:
            bundle.install(CLIENT)
        else:
            pack(Path(arguments[0]).resolve() if arguments else ROOT / "dist")
    except bundle.BuildError as failure:
        if "--install-if-possible" not in arguments:
            print(failure, file=sys.stderr)
            return 1
        print(f"The TypeScript SDK is not type-checked; everything else works.\n{failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
