"""Libraries whose logs repeat, in their words, what is said here in ours."""

from __future__ import annotations

import logging
from typing import Final

NOISY: Final = ("clickhouse_connect", "urllib3", "faust", "mode", "aiokafka")


def silence_libraries() -> None:
    """Let these libraries log only what is critical."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
