"""Calls a function when a module has been imported, now or later."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from stepstream.producers.sdk_log import internal_error

Ready = Callable[[ModuleType], None]


class AfterImport(importlib.abc.MetaPathFinder):
    """Modules that are waited for. Nothing is imported for them: a client takes a second to load,
    and most programs use one of many that are installed."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Ready]] = {}
        self._lock = threading.RLock()
        self._searching = threading.local()

    def call(self, module: str, ready: Ready) -> None:
        """Call ``ready`` with the module: at once if it is imported, else after its import."""
        found = sys.modules.get(module)
        if found is not None and _is_half_executed(found):
            # Another thread is importing it, with its finder already chosen: this waits for the
            # end, as an import statement does.
            with contextlib.suppress(Exception):
                found = importlib.import_module(module)
        if found is not None and not _is_half_executed(found):
            _call(ready, found)
            return
        with self._lock:
            self._waiting.setdefault(module, []).append(ready)
            if self not in sys.meta_path:
                sys.meta_path.insert(0, self)

    def clear(self) -> None:
        """Wait for nothing any more."""
        with self._lock:
            self._waiting.clear()
            if self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders return, with a loader that calls us afterwards."""
        if fullname not in self._waiting or getattr(self._searching, "name", "") == fullname:
            return None
        # Another finder that asks all finders, such as a second one of these, asks this one again.
        self._searching.name = fullname
        try:
            spec = self._found_by_others(fullname, path, target)
        finally:
            self._searching.name = ""
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self)
        return spec

    def _found_by_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def imported(self, module: ModuleType) -> None:
        """A module that is waited for has been executed."""
        with self._lock:
            waiting = self._waiting.pop(module.__name__, [])
        for ready in waiting:
            _call(ready, module)


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: Any, after: AfterImport) -> None:
        self._inner = inner
        self._after = after

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: resources and source code are read through it.
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._after.imported(module)


def _is_half_executed(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _call(ready: Ready, module: ModuleType) -> None:
    try:
        ready(module)
    except Exception as error:
        internal_error(f"instrument.{module.__name__}", error)
