"""What the machine is, and what processes cost on it: CPU time and memory by process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_PROC: Final = Path("/proc")


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory, system, Python."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gb": round(_memory_bytes() / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """Processes that wanted a core during the last minute; 0 on systems that do not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _cpu_name() -> str:
    if (_PROC / "cpuinfo").exists():
        for line in (_PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of those they started, ended ones included; 0 for
    one that is gone."""
    if sys.platform != "linux":
        return sum(_cpu_seconds_ps(pid) for pid in pids)
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    left, seen, ticks = list(pids), set[int](), 0
    while left:
        pid = left.pop()
        if pid in seen or pid not in stats:
            continue
        seen.add(pid)
        ticks += stats[pid].ticks
        left += children.get(pid, [])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    ticks: int


def _stats() -> dict[int, _Stat]:
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended in this moment
            found[int(entry.name)] = _Stat(
                int(fields[1]), sum(int(field) for field in fields[11:15])
            )
    return found


def _cpu_seconds_ps(pid: int) -> float:
    answer = subprocess.run(
        ["ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    seconds = 0.0
    for part in answer.stdout.strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part or 0)
    return seconds


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of these processes: memory they share is counted once. 0 where the
    system does not report it."""
    total = 0
    for pid in pids:
        try:
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")
        )
    return total


class CpuMeter:
    """CPU seconds of named parts since the meter was made or last read."""

    def __init__(self, parts: Mapping[str, Iterable[int]]) -> None:
        self._parts = {name: list(pids) for name, pids in parts.items()}
        self._last = self._now()

    def lap(self) -> dict[str, float]:
        """Seconds by part since the last lap."""
        now = self._now()
        used = {name: now[name] - self._last[name] for name in now}
        self._last = now
        return used

    def _now(self) -> dict[str, float]:
        return {name: cpu_seconds(pids) for name, pids in self._parts.items()}
