"""An agent for the benchmark of kills: records steps until it is killed, and notes when.

``python -m benchmarks.killed_agent NAME FILE``. FILE gets 8 bytes for each event, the monotonic
time in nanoseconds at which the call that recorded it had returned: first the run's start, then
start and end of each step. The file is mapped into memory, so that it is whole after a SIGKILL.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Final

import stepstream

MOST_EVENTS: Final = 100_000
PAUSE_S: Final = 0.002
_TIME: Final = struct.Struct("=q")


def main(name: str, file: str) -> None:
    """Record steps called NAME-1, NAME-2 ... in a run called NAME."""
    with (
        Path(file).open("w+b") as opened,
        stepstream.run(name) as run,
    ):
        opened.truncate(MOST_EVENTS * _TIME.size)
        times = mmap.mmap(opened.fileno(), 0)
        _TIME.pack_into(times, 0, time.monotonic_ns())
        # The SDK's thread has loaded its modules then, and is connected.
        stepstream.flush(60)
        for number in range(1, MOST_EVENTS // 2):
            step = run.tool(f"{name}-{number}", input="x" * 200).start()
            _TIME.pack_into(times, (2 * number - 1) * _TIME.size, time.monotonic_ns())
            step.end()
            _TIME.pack_into(times, 2 * number * _TIME.size, time.monotonic_ns())
            time.sleep(PAUSE_S)


def recorded(file: Path) -> list[int]:
    """The times of the events, in order, of an agent that has ended."""
    if not file.exists():
        return []
    found = [time_ns for (time_ns,) in _TIME.iter_unpack(file.read_bytes())]
    return found[: found.index(0)] if 0 in found else found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
