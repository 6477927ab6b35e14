"""Functions as steps: plain, async, generators of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepstream.producers.steps import Step


def decorated(function: Callable[..., Any], open_step: Callable[[str], Step]) -> Callable[..., Any]:
    raise NotImplementedError
