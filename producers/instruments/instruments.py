"""``instrument`` and ``uninstrument``: replace methods of installed packages, and restore them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from stepstream.producers.instruments import bedrock
from stepstream.producers.instruments.calls import Switch, recorded
from stepstream.producers.instruments.imports import AfterImport
from stepstream.producers.instruments.methods import METHODS, Method
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.tracer import Tracer

# The module of each name: the client counts as installed if it is found.
PACKAGES: Final[dict[str, str]] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google.genai",
    "mistral": "mistralai",
    "cohere": "cohere",
    "litellm": "litellm",
    "bedrock": "botocore",
    "langchain": "langchain_core",
    "openai_agents": "agents",
}


class Instruments:
    """The methods of clients that were replaced so that one tracer records their calls."""

    def __init__(self, tracer: Tracer) -> None:
        self._switch = Switch(tracer)
        self._after = AfterImport()
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._restore: list[Callable[[], None]] = []
        self._names: set[str] = set()

    def on(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Record the calls of these clients, or of all that are installed.

        Returns their names, without those that are unknown, which are reported as misuse, and those
        that are not installed.
        """
        wanted = [name for name in names or PACKAGES if self._is_known(name)]
        found = [name for name in wanted if _is_installed(PACKAGES[name])]
        self._switch.is_on = True
        for name in found:
            if name not in self._names:
                self._names.add(name)
                self._replace(name)
        return tuple(found)

    def off(self) -> None:
        """Restore every method. Streams that are open are recorded to their end."""
        self._switch.is_on = False
        self._after.clear()
        for owner, name, original, ours in reversed(self._replaced):
            # A method that other code has wrapped since stays: ours then only calls the original.
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        for restore in self._restore:
            restore()
        self._replaced.clear()
        self._restore.clear()
        self._names.clear()

    @staticmethod
    def _is_known(name: object) -> bool:
        if name in PACKAGES:
            return True
        misuse(
            "instrument",
            f"instrument({shown(name)}) is ignored: it knows {', '.join(PACKAGES)}",
        )
        return False

    def _replace(self, name: str) -> None:
        for method in METHODS.get(name, ()):
            self._after.call(method.module, functools.partial(self._method, method))
        if name == "bedrock":
            self._after.call("botocore.client", self._bedrock)
        elif name == "langchain":
            self._after.call("langchain_core.callbacks.manager", self._langchain)
        elif name == "openai_agents":
            self._after.call("agents", self._openai_agents)

    def _method(self, method: Method, module: ModuleType) -> None:
        owner: Any = getattr(module, method.owner, None) if method.owner else module
        original = None if owner is None else vars(owner).get(method.name)
        # Other versions of a package lack some of the methods.
        if original is None:
            return
        ours = recorded(original, method, self._switch)
        self._put(owner, method.name, original, ours)

    def _bedrock(self, module: ModuleType) -> None:
        owner = module.BaseClient
        original = vars(owner)["_make_api_call"]
        self._put(
            owner, "_make_api_call", original, bedrock.recorded_api_call(original, self._switch)
        )

    def _langchain(self, _module: ModuleType) -> None:
        from stepstream.producers.instruments.langchain import add_handler

        self._restore.append(add_handler(self._switch))

    def _openai_agents(self, _module: ModuleType) -> None:
        from stepstream.producers.instruments.openai_agents import add_processor

        self._restore.append(add_processor(self._switch))

    def _put(self, owner: Any, name: str, original: Any, ours: Any) -> None:
        setattr(owner, name, ours)
        self._replaced.append((owner, name, original, ours))


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
