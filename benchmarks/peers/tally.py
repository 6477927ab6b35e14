"""Shared by the peers' scripts, which run outside our environment: standard library only."""

import json
import os
import time


class Tally:
    """Counts records; from the first to the last one it takes wall and CPU time of the whole process."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self._wall = self._cpu = 0.0

    def add(self, records: int = 1) -> bool:
        """True once all that are wanted have come."""
        if not self.count:
            self._wall, self._cpu = time.monotonic(), time.process_time()
        self.count += records
        return self.count >= self.wanted

    def finish(self) -> None:
        """Say what it took, and leave without goodbyes: nothing is to be saved."""
        took = {"wall_s": time.monotonic() - self._wall, "cpu_s": time.process_time() - self._cpu, "events": self.count}
        print(json.dumps(took), flush=True)
        os._exit(0)
