"""Silences libraries whose log records repeat our own messages."""

from __future__ import annotations

import logging
from typing import Final

NOISY: Final = ("clickhouse_connect", "urllib3", "faust", "mode", "aiokafka")


def silence_libraries() -> None:
    """Set the log level of these libraries to critical."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
