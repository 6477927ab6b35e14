"""Kafka's jars: exactly those listed in ``kafka-4.4.0.sha256``, downloaded once or taken from a
folder.

The list is in the format of sha256sum, with paths as in a Maven repository. A verified jar is
remembered by size and modification time, so that later starts need not read it.
``python -m stepstream.local.embedded.jars`` downloads them in advance.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from stepstream.local.embedded.errors import JarChecksum, JarMissing
from stepstream.local.embedded.fetch import KAFKA_VERSION, Jar, fetch, sha256_of

CHECKSUMS = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")


def wanted(checksums: Path = CHECKSUMS) -> list[Jar]:
    """The jars this release runs with."""
    return [Jar(*line.split()) for line in checksums.read_text().splitlines() if line.strip()]


def cache_folder() -> Path:
    """Where downloaded jars are kept: the user's cache folder."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "stepstream" / f"kafka-{KAFKA_VERSION}"


class Stamps:
    """Remembers which files were verified, by size and modification time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._known: dict[str, list[object]] = json.loads(file.read_text())
        except (OSError, ValueError):
            self._known = {}

    def verified(self, path: Path, jar: Jar) -> bool:
        """Whether the file is the wanted jar; reads it only when it has changed since it was last
        read."""
        stat = path.stat()
        stamp: list[object] = [stat.st_size, stat.st_mtime_ns, jar.sha256]
        if self._known.get(str(path)) == stamp:
            return True
        if sha256_of(path) != jar.sha256:
            return False
        self._known[str(path)] = stamp
        return True

    def save(self) -> None:
        """Best effort: without it the next start reads the files again."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(handle, "w") as file:
                json.dump(self._known, file)
            os.replace(name, self._file)
        except OSError:
            return


def class_path(
    jars_dir: Path | None = None, cache: Path | None = None, log: Callable[[str], None] = print
) -> list[Path]:
    """The verified jars. Downloads what is missing, unless ``jars_dir`` is given.

    ``jars_dir`` may be any folder that contains them: flat, a Maven repository, or ``libs`` of a
    Kafka download. Raises ``JarMissing`` or ``JarChecksum``.
    """
    cache = cache or cache_folder()
    stamps = Stamps(cache / "verified.json")
    found = _from_folder(jars_dir, stamps) if jars_dir else _from_cache(cache, stamps, log)
    stamps.save()
    return found


def _from_folder(folder: Path, stamps: Stamps) -> list[Path]:
    if not folder.is_dir():
        raise JarMissing(
            f"the jars folder {folder} does not exist; it must contain the jars listed in "
            f"{CHECKSUMS}"
        )
    by_name = {path.name: path for path in folder.rglob("*.jar")}
    jars = wanted()
    missing = [jar.name for jar in jars if jar.name not in by_name]
    if missing:
        raise JarMissing(
            f"{len(missing)} of {len(jars)} jars are not in {folder}: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; copy them there from a machine with network "
            f"(its {cache_folder()}, or libs/ of the Kafka {KAFKA_VERSION} download)"
        )
    for jar in jars:
        if not stamps.verified(by_name[jar.name], jar):
            raise JarChecksum(_differs(by_name[jar.name], jar))
    return [by_name[jar.name] for jar in jars]


def _differs(path: Path, jar: Jar) -> str:
    return (
        f"{path} is not the jar this release was tested with: its SHA-256 is {sha256_of(path)}, "
        f"expected {jar.sha256}. "
        f"Replace the file with the original of {jar.path}"
    )


def _from_cache(cache: Path, stamps: Stamps, log: Callable[[str], None]) -> list[Path]:
    absent = [jar for jar in wanted() if not _good(cache / jar.name, jar, stamps)]
    if absent:
        _fetch(absent, cache, log)
        _accept(absent, cache, stamps)
    return [cache / jar.name for jar in wanted()]


def _good(path: Path, jar: Jar, stamps: Stamps) -> bool:
    return path.exists() and stamps.verified(path, jar)


def _fetch(jars: list[Jar], cache: Path, log: Callable[[str], None]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="fetching-", dir=cache))
    try:
        for jar, path in fetch(jars, staging, log):
            if sha256_of(path) != jar.sha256:
                raise JarChecksum(
                    f"the download of {jar.path} is not the jar this release was tested with: its "
                    "SHA-256 is "
                    f"{sha256_of(path)}, expected {jar.sha256}. Try again; if it stays so, the "
                    "mirror in use serves "
                    f"another file: set kafka_jars_dir to a folder with the originals"
                )
            os.replace(path, cache / jar.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _accept(jars: Iterable[Jar], cache: Path, stamps: Stamps) -> None:
    for jar in jars:
        if not stamps.verified(cache / jar.name, jar):
            raise JarChecksum(_differs(cache / jar.name, jar))


if __name__ == "__main__":
    print(class_path()[0].parent)
