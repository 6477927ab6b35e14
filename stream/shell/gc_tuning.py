"""Thresholds of Python's garbage collector for a process with millions of long-lived objects and
hardly any cycles.

With Python's defaults the collector examines the open runs again and again and finds nothing to
free. The row "collector" of ``python -m benchmarks.logic`` compares both.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 5_000
"""Containers made and not freed before the young ones are looked through: nothing else happens
meanwhile, so not too many.
"""

MIDDLE: Final = 2_000
"""What outlived that is looked through after so many times more,"""
OLD: Final = 10
"""and everything after so many times more: that takes a quarter of a second and longer. What
Python's code and Kafka's clients leave behind is young.
"""


def relax_collector() -> None:
    """Leave what has been imported out of every collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
