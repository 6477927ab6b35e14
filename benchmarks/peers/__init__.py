"""Other stream processors, each installed into an environment of its own: never a dependency, never
imported here.

The environments lie in the user's cache folder (``$XDG_CACHE_HOME/stepstream/peers``) and are made
only when asked for. Each peer is a script here that its environment's Python runs: it reads a topic
doing nothing, and reports what that took.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Peer:
    """A package at the version that was measured, and the script that runs it."""

    name: str
    script: str
    requirements: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Its environment; another version is another folder."""
        label = self.requirements[0].replace("==", "-").replace("[", "-").replace("]", "")
        return cache_folder() / f"{label}-py{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def installed(self) -> bool:
        return (self.folder / ".ready").exists()

    def command(self, *arguments: str) -> list[str]:
        """How its script is run."""
        return [str(self.python), str(Path(__file__).with_name(self.script)), *arguments]

    def install(self) -> None:
        """Make the environment. Raises ``subprocess.CalledProcessError``."""
        if self.installed:
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.folder)], check=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *self.requirements], check=True)
        (self.folder / ".ready").touch()


def cache_folder() -> Path:
    """Where the peers' environments lie."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "stepstream" / "peers"


FAUST: Final = Peer(
    "faust, stock",
    "stock_faust.py",
    ("faust-streaming==0.15.3", "cramjam", "uvloop", "setuptools<81"),
)
QUIX: Final = Peer("Quix Streams", "quix.py", ("quixstreams==3.28.1",))
BYTEWAX: Final = Peer("Bytewax", "bytewax_noop.py", ("bytewax[kafka]==0.21.1",))
PEERS: Final = (FAUST, QUIX, BYTEWAX)
