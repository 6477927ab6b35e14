"""Thresholds of Python's garbage collector for a process with millions of long-lived objects and
hardly any cycles.

With Python's defaults the collector examines the open runs again and again and finds nothing to
free: 1.1 us of 17.5 us an event with 100,000 runs open (row "garbage collection" of
``python -m benchmarks.logic --open-runs 100000``; its table "collector" compares both).
"""

from __future__ import annotations

import gc
from typing import Final

# Net new containers before the youngest generation is collected: the process stops meanwhile, so
# the number is not higher.
YOUNG: Final = 5_000
# Collections of one generation before the next one is collected. A full collection takes a quarter
# of a second and longer; the cycles that Python's code and Kafka's clients leave are young.
MIDDLE: Final = 2_000
OLD: Final = 10


def relax_collector() -> None:
    """Exempt what has been imported from every collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
