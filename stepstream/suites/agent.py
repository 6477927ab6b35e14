"""Loads the agent of a suite: ``module:function`` of the current folder or a package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepstream.schemas.suggestions import did_you_mean


class AgentError(ValueError):
    """No such agent; the message names it and what to do."""


def load_agent(reference: str) -> Callable[[Any], Any]:
    """The function. Raises ``AgentError``."""
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise AgentError(f"{reference}: an agent is named module:function")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's: whatever it raises is reported
        raise AgentError(f"{reference}: {type(error).__name__}: {error}") from None
    found = getattr(module, name, None)
    if not callable(found):
        functions = [one for one in dir(module) if one[0] != "_" and callable(getattr(module, one))]
        raise AgentError(
            f"{reference}: {module_name} has no function {name}; {did_you_mean(name, functions)}"
        )
    made: Callable[[Any], Any] = found
    return made
