"""Registries load the project's own modules and those of installed packages, and contain
broken ones.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepstream.schemas.extensions import (
    DuplicateExtensionError,
    Registry,
    UnknownExtensionError,
)

GROUP = "stepstream.test_tools"
REGISTRY: Registry[type] = Registry("tool", group=GROUP)
Install = Callable[..., None]


@pytest.fixture
def tools() -> Registry[type]:
    """An empty registry, which modules written by ``install`` find as ``REGISTRY`` of this
    module.
    """
    registry: Registry[type] = Registry("tool", group=GROUP)
    globals()["REGISTRY"] = registry
    return registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path as pip does: its module, and its metadata with an entry
    point.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    installed: list[str] = []

    def put(name: str, code: str, *, target: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(f"from {__name__} import REGISTRY\n{code}")
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {target or name}\n")
        installed.append(name)

    yield put
    for name in installed:
        sys.modules.pop(name, None)


DEFINES = "@REGISTRY.register('{name}')\nclass Tool: ...\n"


def test_what_is_registered_is_found_by_name(tools: Registry[type]) -> None:
    """The decorator returns what it registers; names are listed sorted."""

    @tools.register("saw")
    class Saw: ...

    @tools.register("axe")
    class Axe: ...

    assert tools.get("saw") is Saw
    assert tools.items() == (("axe", Axe), ("saw", Saw))
    assert "saw" in tools
    assert "plane" not in tools


def test_an_unknown_name_is_an_error_that_names_the_nearest(tools: Registry[type]) -> None:
    """A typing mistake is shown with what was meant; a name like no other with all there are."""
    tools.add("hammer", int)
    tools.add("saw", str)
    with pytest.raises(
        UnknownExtensionError, match="there is no tool 'hamer'; did you mean hammer"
    ):
        tools.get("hamer")
    with pytest.raises(UnknownExtensionError, match="there are: hammer, saw"):
        tools.get("plane")


def test_a_name_is_given_once(tools: Registry[type]) -> None:
    """Another definition of a name is refused; the same one again, after a reload, replaces it."""
    tools.add("saw", int)
    tools.add("saw", int)
    with pytest.raises(DuplicateExtensionError, match=r"builtins\.int and builtins\.str"):
        tools.add("saw", str)


def test_the_modules_of_a_package_are_loaded_on_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: Registry[type]
) -> None:
    """Nothing is imported before; modules that register nothing are no error."""
    package = tmp_path / "acme_box"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("")
    (package / "saw.py").write_text(
        f"from {__name__} import BOX\n@BOX.register('saw')\nclass S: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    box: Registry[type] = Registry("tool", group=GROUP, packages=("acme_box",))
    globals()["BOX"] = box
    assert "acme_box.saw" not in sys.modules
    assert box.names() == ("saw",)
    # Other tests of this process must not find the modules loaded.
    for name in ("acme_box", "acme_box.saw", "acme_box.words"):
        del sys.modules[name]


def test_packages_that_are_installed_register_theirs(
    install: Install, tools: Registry[type]
) -> None:
    """An entry point names a module, or something in it."""
    install("acme_saws", DEFINES.format(name="saw"))
    install("acme_axes", DEFINES.format(name="axe"), target="acme_axes:Tool")
    assert tools.names() == ("axe", "saw")
    assert tools.failures() == ()


def test_a_broken_package_is_reported_and_stops_nothing(
    install: Install, tools: Registry[type], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once with its version, named in the error of an unknown name, and unloaded."""
    install("acme_axes", DEFINES.format(name="axe") + "raise SystemExit('no licence')")
    install("acme_nails", "")
    install("acme_planes", "import no_such_module")
    install("acme_saws", DEFINES.format(name="saw"))
    with caplog.at_level(logging.WARNING):
        assert tools.names() == ("saw",)
    packages = [failure.package for failure in tools.failures()]
    assert packages == ["acme_axes 1.2", "acme_nails 1.2", "acme_planes 1.2"]
    assert len(caplog.records) == 3
    with pytest.raises(UnknownExtensionError) as raised:
        tools.get("axe")
    assert "acme_axes 1.2: entry point acme_axes = acme_axes: SystemExit: no licence" in str(
        raised.value
    )
    assert "it registers no tool" in str(raised.value)
    assert "No module named 'no_such_module'" in str(raised.value)


def test_a_package_cannot_take_the_name_of_another(install: Install, tools: Registry[type]) -> None:
    """What was there first keeps the name; the package that wants it is reported."""
    tools.add("saw", int)
    install("acme_saws", DEFINES.format(name="saw"))
    # Installing a package must not change what a name of ours means.
    assert tools.items() == (("saw", int),)
    assert "two tools are named saw" in tools.failures()[0].reason
