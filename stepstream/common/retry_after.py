"""The header Retry-After of an HTTP answer."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


def retry_after_s(text: str, longest_s: float) -> float:
    """The header in seconds, at most ``longest_s``; 0 if it is missing or invalid."""
    try:
        seconds = (
            float(text)
            if text.strip().isdecimal()
            else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError, OSError):
        return 0.0
    return min(longest_s, max(0.0, seconds))
