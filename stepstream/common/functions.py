"""Functions that a setting names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def load_function(name: str, setting: str) -> Callable[..., Any]:
    """The function named ``module:function``. Raises ``ValueError`` if there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{setting} must be module:function, and {name!r} is not: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"{setting}: {name!r} is no function")
    return found  # type: ignore[no-any-return]
