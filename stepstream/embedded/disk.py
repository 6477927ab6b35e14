"""Space on the data folder's disk: what is too little, and the guard that closes a door before it runs out."""

from __future__ import annotations

import shutil
from pathlib import Path

from stepstream.embedded.errors import DiskNearlyFull

# Kafka and ClickHouse end hard on a full disk; a segment, a merge and the system's own needs fit into this.
MIN_FREE_BYTES = 1 << 30
# Below this not even a start is safe.
START_FREE_BYTES = 256 << 20


def free_bytes(folder: Path) -> int:
    """What an unprivileged program may still write on the folder's disk; the folder need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, need: int = START_FREE_BYTES, free: int | None = None) -> None:
    """Raise DiskNearlyFull when less than ``need`` bytes are left."""
    left = free_bytes(folder) if free is None else free
    if left < need:
        raise DiskNearlyFull(
            f"only {left >> 20} MiB are free on the disk of {folder}, at least {need >> 20} MiB are needed to start: "
            f"make space, or choose another data folder"
        )
