"""Downloads jars through jgo, from Maven Central or the mirror in jgo's own settings, with a
progress bar."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepstream.common.terminal import console
from stepstream.local.embedded.errors import JarMissing, MissingPackage

KAFKA_VERSION: Final = "4.4.0"
AT_ONCE = 6
ATTEMPTS = 3
TIMEOUT_SECONDS = 30

Update = Callable[[int], None]
Begin = Callable[[str, int], contextlib.AbstractContextManager[Update]]


@dataclass(frozen=True)
class Jar:
    """One jar: its SHA-256 and its path in a Maven repository (group/artifact/version/file)."""

    sha256: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def coordinate(self) -> tuple[str, str, str]:
        *group, artifact, version, _ = self.path.split("/")
        return ".".join(group), artifact, version


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(jars: list[Jar], folder: Path, log: Callable[[str], None]) -> list[tuple[Jar, Path]]:
    """Each jar with the file it was downloaded to, below ``folder``.

    Raises ``JarMissing`` without a network.
    """
    with _progress(len(jars), log) as begin, ThreadPoolExecutor(AT_ONCE) as pool:
        context = _maven(folder, begin)
        paths = list(pool.map(lambda jar: _fetch_one(context, jar, folder), jars))
    return list(zip(jars, paths, strict=True))


def _maven(folder: Path, begin: Begin) -> Any:
    try:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver
    except ImportError:
        raise MissingPackage("jgo", "fetches Kafka's jars") from None
    settings = GlobalSettings.load()
    return MavenContext(
        resolver=PythonResolver(progress_callback=begin),
        repo_cache=folder,
        # jgo takes one of its own folder's files as it is: only what is ours may be trusted unread.
        local_repos=[],
        remote_repos={**settings.repositories, "central": MAVEN_CENTRAL_URL},
        timeout=TIMEOUT_SECONDS,
    )


def _fetch_one(context: Any, jar: Jar, folder: Path) -> Path:
    group, artifact, version = jar.coordinate
    wanted = context.project(group, artifact).at_version(version).artifact()
    target = folder / jar.path
    for attempt in range(1, ATTEMPTS + 1):
        target.unlink(missing_ok=True)  # a broken download of the attempt before
        try:
            path = Path(wanted.resolve())
        except Exception as error:
            if attempt == ATTEMPTS:
                raise _unreachable(jar, error) from error
            continue
        if sha256_of(path) == jar.sha256 or attempt == ATTEMPTS:
            return path
    raise AssertionError("unreachable")


def _unreachable(jar: Jar, error: Exception) -> JarMissing:
    return JarMissing(
        f"could not fetch {jar.path} ({type(error).__name__}: {str(error)[:200]}): Kafka "
        f"{KAFKA_VERSION} is fetched once, "
        "45 MB. Connect to the network and start again, or set kafka_jars_dir to a folder with "
        "the jars "
        f"(libs/ of the Kafka download, or the cache folder of another machine)"
    )


@contextlib.contextmanager
def _progress(count: int, log: Callable[[str], None]) -> Iterator[Begin]:
    """A bar on a terminal; without one a line at the beginning and at the end."""
    title = f"fetching Apache Kafka {KAFKA_VERSION}, once: {count} jars"
    if not sys.stderr.isatty():
        log(title)
        yield _silent
        log("fetched Apache Kafka")
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        # Their sizes come only with the answers: each jar counts as one, its bytes as parts of it.
        task = bar.add_task(title, total=count)

        @contextlib.contextmanager
        def begin(_name: str, size: int) -> Iterator[Update]:
            yield lambda received: bar.advance(task, received / size)

        yield begin


@contextlib.contextmanager
def _silent(_name: str, _size: int) -> Iterator[Update]:
    yield lambda _received: None
