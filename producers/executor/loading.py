"""Finds the executor that ``module:app`` names."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from stepstream.schemas.suggestions import did_you_mean

if TYPE_CHECKING:
    from stepstream.producers.executor.app import Executor


class AppNotFound(ValueError):
    """``module:app`` names no executor: the message has the reason."""


def load_app(target: str) -> Executor:
    """The executor at ``module:app``; without ``:app`` the only one of the module.

    Raises ``AppNotFound``, and what the module raises when it is imported.
    """
    from stepstream.producers.executor.app import Executor

    module, _, name = target.partition(":")
    if not module or module.endswith(".py"):
        hint = module.removesuffix(".py").replace("/", ".")
        raise AppNotFound(f"{target!r}: write module:app, such as {hint or 'agents'}:app")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that this one imports may be what is missing.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise AppNotFound(
            f"there is no module {module!r} in this folder or among the installed packages "
            f"(searched: {', '.join(sys.path[:2])}, ...)"
        ) from None
    apps = {key: value for key, value in vars(found).items() if isinstance(value, Executor)}
    if not name and len(apps) == 1:
        return next(iter(apps.values()))
    if name in apps:
        return apps[name]
    if not apps:
        raise AppNotFound(f"{module} has no executor: write app = stepstream.Executor() in it")
    hint = did_you_mean(name, apps) if name else f"write {module}:{next(iter(apps))}"
    raise AppNotFound(f"{module} has no executor {name!r}: {hint}")
