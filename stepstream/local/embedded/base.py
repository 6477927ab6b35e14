"""What the embedded Kafka and the embedded ClickHouse have in common: folder, lock, ports, life
cycle."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, TypeVar

from stepstream.common.process import Identity, end_leftover
from stepstream.local.embedded.disk import require_space
from stepstream.local.embedded.errors import FolderInUse, LocalError, PortTaken
from stepstream.local.embedded.lock import FolderLock

PORT_ATTEMPTS: Final = 3
# At load 23 on two cores ClickHouse needed more than 60 s.
START_SECONDS: Final = 180.0
Self = TypeVar("Self", bound="EmbeddedEngine")


class EmbeddedEngine(ABC):
    """An engine in a folder: started here, ended with this process, its data kept for the next
    start.

    Args:
        data_dir: the folder; one engine at a time works on it.
        port: where it listens; 0 takes a free port, and the same one again at the next start where
            that is possible.
        prefer_port: the port to try first in a new folder, when ``port`` is 0.
        log: receives lines for people.
        port_setting: the setting that an error about the port names.
    """

    NAME: ClassVar[str]
    REFUSED_CHARACTER: ClassVar[str]
    """One that the engine cannot have in the name of its folder."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int,
        prefer_port: int,
        log: Callable[[str], None] | None,
        port_setting: str,
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self._port = port
        self._prefer = prefer_port
        self._log = log or (lambda _line: None)
        self._port_setting = port_setting
        self._lock = FolderLock(self._folder, f"an embedded {self.NAME}")
        self._guard = threading.RLock()

    @property
    def data_dir(self) -> Path:
        return self._folder

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients connect. Raises ``LocalError`` before the start."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """The processes that run now."""

    @property
    @abstractmethod
    def _is_started(self) -> bool: ...

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def stop(self, timeout: float = 20) -> None:
        """Ask it to end, kill it after ``timeout`` seconds. Does nothing when it does not run."""

    def start(self) -> str:
        """Start it and return its address once it answers. Raises ``LocalError``."""
        with self._guard:
            if self._is_started:
                raise LocalError(f"the embedded {self.NAME} has been started already")
            if self.REFUSED_CHARACTER in str(self._folder):
                raise LocalError(
                    f"{self.NAME} cannot use a folder with {self.REFUSED_CHARACTER!r} in its name: "
                    f"{self._folder}; choose another"
                )
            self._lock.acquire()
            try:
                require_space(self._folder)
                self._start()
            except BaseException:
                self.stop()
                raise
            return self.address

    def _end_leftovers(self, processes: Iterable[Identity]) -> None:
        """End what an earlier owner of the folder left running."""
        for process in processes:
            if not end_leftover(process):
                raise FolderInUse(
                    f"an earlier {self.NAME} (process {process.pid}) still works on "
                    f"{self._folder}: "
                    "end it"
                )

    def _try_ports(self, attempt: Callable[[bool], None], discard: Callable[[], None]) -> None:
        """Call ``attempt(again)`` until no other program takes its port in the meantime.

        A port that a setting names is tried once. ``discard`` removes what a failed attempt left.
        """
        for number in range(1, PORT_ATTEMPTS + 1):
            try:
                attempt(number > 1)
                return
            except PortTaken:
                discard()
                if self._port or number == PORT_ATTEMPTS:
                    raise

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
