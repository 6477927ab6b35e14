"""Registries that other packages extend: detectors and channels, registered by name.

A registry is filled from two sources, both read on first use:

- the project's own modules: every module of the packages named in ``packages`` is imported;
- installed packages: every entry point of the group ``group`` is loaded.

A module registers what it defines with the decorator ``Registry.register``. The registry itself
stands in a package that every other may import, the modules that fill it in a package above: that
package is named by its text, so that nothing below imports something above.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Final, Generic, TypeVar

from stepstream.schemas.suggestions import did_you_mean

T = TypeVar("T")
_log: Final = logging.getLogger("stepstream.extensions")


class UnknownExtensionError(ValueError):
    """No extension has this name. The text names the nearest one, and what failed to load."""


class DuplicateExtensionError(ValueError):
    """Two extensions have the same name."""


@dataclass(frozen=True, slots=True)
class ExtensionFailure:
    """An entry point that could not be loaded."""

    package: str
    """The distribution that declares it, with its version: ``acme-detectors 1.2``."""
    entry_point: str
    reason: str

    def __str__(self) -> str:
        return f"{self.package}: entry point {self.entry_point}: {self.reason}"


class Registry(Generic[T]):
    """Extensions of one kind by name.

    Args:
        noun: what one of them is called in an error, ``rule`` or ``channel``.
        group: the entry point group that other packages declare.
        packages: packages of this project whose modules are all imported on first use.
    """

    def __init__(self, noun: str, *, group: str, packages: tuple[str, ...] = ()) -> None:
        self.noun = noun
        self.group = group
        self._packages = packages
        self._extensions: dict[str, T] = {}
        self._failures: list[ExtensionFailure] = []
        self._loaded_own = False
        self._loaded_all = False
        self._lock = RLock()

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers what it decorates under ``name``.

        Raises:
            DuplicateExtensionError: something else has this name.
        """

        def add(extension: T) -> T:
            self.add(name, extension)
            return extension

        return add

    def add(self, name: str, extension: T) -> None:
        """Register ``extension`` under ``name``; the decorator ``register`` as a call."""
        with self._lock:
            present = self._extensions.get(name)
            if present is not None and _origin(present) != _origin(extension):
                raise DuplicateExtensionError(
                    f"two {self.noun}s are named {name}: {_origin(present)} and "
                    f"{_origin(extension)}"
                )
            # The same definition again: its module was reloaded.
            self._extensions[name] = extension

    def get(self, name: str) -> T:
        """The extension of this name.

        Raises:
            UnknownExtensionError: there is none.
        """
        found = self.find(name)
        if found is None:
            raise UnknownExtensionError(self.unknown(name))
        return found

    def find(self, name: str) -> T | None:
        """The extension of this name, or None. Other packages are loaded only if it is not ours."""
        self._load_own()
        if name not in self._extensions:
            self._load_all()
        return self._extensions.get(name)

    def unknown(self, name: str) -> str:
        """The error for a name that is not registered: it names the nearest one."""
        hint = did_you_mean(name, self.names())
        broken = "".join(f"; not loaded: {failure}" for failure in self.failures())
        return f"there is no {self.noun} {name!r}; {hint}{broken}"

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(name for name, _ in self.items())

    def items(self) -> tuple[tuple[str, T], ...]:
        """All extensions with their names, sorted by name."""
        self._load_all()
        with self._lock:
            return tuple(sorted(self._extensions.items(), key=lambda item: item[0]))

    def failures(self) -> tuple[ExtensionFailure, ...]:
        """The entry points that could not be loaded. Each was logged when it failed."""
        self._load_all()
        return tuple(self._failures)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def _load_own(self) -> None:
        if self._loaded_own:
            return
        with self._lock:
            if self._loaded_own:
                return
            for package in self._packages:
                for module in _modules_of(package):
                    importlib.import_module(module)
            # Set at the end: another thread that sees it finds a complete registry. An import that
            # fails here is a defect of this project and is raised, again on the next use.
            self._loaded_own = True

    def _load_all(self) -> None:
        if self._loaded_all:
            return
        with self._lock:
            if self._loaded_all:
                return
            self._load_own()
            for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
                self._load_entry_point(point)
            self._loaded_all = True

    def _load_entry_point(self, point: EntryPoint) -> None:
        """Load one entry point; what it raises is noted and logged, and stops nothing."""
        before = dict(self._extensions)
        try:
            point.load()
        except (Exception, SystemExit) as error:
            # What a package registered before it failed is taken back: half of it may not work.
            self._extensions = before
            self._fail(point, f"{type(error).__name__}: {error}")
            return
        if len(self._extensions) == len(before):
            self._fail(point, f"it registers no {self.noun}")

    def _fail(self, point: EntryPoint, reason: str) -> None:
        dist = point.dist
        package = f"{dist.name} {dist.version}" if dist is not None else point.value
        failure = ExtensionFailure(package, f"{point.name} = {point.value}", reason)
        self._failures.append(failure)
        _log.warning("cannot load a %s of %s", self.noun, failure)


def _modules_of(package: str) -> Iterator[str]:
    path = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(path, prefix=f"{package}."):
        if not module.ispkg:
            yield module.name


def _origin(extension: object) -> str:
    """Where an extension is defined: ``module.name``."""
    module = getattr(extension, "__module__", type(extension).__module__)
    name = getattr(extension, "__qualname__", None) or repr(extension)
    return f"{module}.{name}"
